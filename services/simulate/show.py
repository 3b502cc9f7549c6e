"""What people see of a play: its progress, the table at the end, the report beside it."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from libs.common.worktime import local
from services.simulate.compare import Line
from services.simulate.run import Pulse, Watch
from services.simulate.settings import Cost, Outcome

_STATUSES = {
    1: "submitted", 2: "received", 3: "refused", 4: "processing", 5: "supplement requested",
    6: "payment requested", 7: "withdrawn", 8: "stopped", 9: "processed", 10: "returned",
}  # fmt: skip
_SHOWN = 50
_WORST = 5


def console(*, error: bool = False) -> Console:
    """Open a console; where it is no terminal, lines are not broken at 80 characters."""
    stream = sys.stderr if error else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 120, highlight=False)


@contextmanager
def progress() -> Iterator[Watch]:
    """Show a bar on a terminal, and elsewhere a line every ten seconds."""
    out = console(error=True)
    if not out.is_terminal:
        yield _lines(out)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=out) as bar:
        task = bar.add_task("setting up", told="", total=1)

        def watch(pulse: Pulse) -> None:
            done = (pulse.now - pulse.since) / (pulse.until - pulse.since)
            bar.update(task, completed=max(0.0, min(1.0, done)), told=_told(pulse),
                       description=f"{local(pulse.now):%H:%M}")  # fmt: skip

        yield watch


def _lines(out: Console) -> Watch:
    last = [time.monotonic() - 8]

    def watch(pulse: Pulse) -> None:
        if time.monotonic() - last[0] >= 10:
            last[0] = time.monotonic()
            out.print(f"{local(pulse.now):%H:%M}  {_told(pulse)}")

    return watch


def _told(pulse: Pulse) -> str:
    again = f", {pulse.retries} sent again" if pulse.retries else ""
    return (
        f"{pulse.tickets:,} of {pulse.expected:,} tickets, {pulse.calls:,} calls, "
        f"{pulse.calls_a_second:.0f}/s{again}"
    )


def show(outcome: Outcome, out: Console) -> None:
    """Print everything there is to say at the end."""
    city = {line.name: line for line in outcome.lines if line.row == "city"}
    out.print(_summary(outcome, city))
    out.print(_worst(outcome))
    out.print(_beside(city))
    _verdict(outcome, out)


def _table(title: str, *columns: str, header: bool = True) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=header)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    return table


def _summary(outcome: Outcome, city: dict[str, Line]) -> Table:
    title = f"The play: {len(outcome.units)} units, week {outcome.week.name}"
    table = _table(title, "", "", header=False)
    for name, value in (*_figures(outcome, city), *_costs(outcome.cost)):
        table.add_row(name, value)
    return table


def _figures(outcome: Outcome, city: dict[str, Line]) -> Iterator[tuple[str, str]]:
    queue = {name.removeprefix("queue."): line.ours for name, line in city.items()}
    ledger = outcome.ledger
    waits = [_minutes(queue[f"wait_{name}_seconds"]) for name in ("p50", "p95", "max")]
    yield "tickets", f"{queue['tickets']:,}"
    yield "  called, finished", f"{queue['called']:,}, {queue['finished']:,}"
    yield "  no-shows, walk-outs", f"{queue['no_show']:,}, {queue['cancelled']:,}"
    yield "  turned away", f"{ledger.turned_away:,}"
    yield "wait P50 / P95 / max", " / ".join(waits)
    yield "share within 20 minutes", _percent(queue["share_within_sla"])
    yield "dossiers", f"{len(ledger.dossiers):,}"
    statuses = Counter(dossier.status for dossier in ledger.dossiers.values())
    for status, number in sorted(statuses.items()):
        yield f"  {status} {_STATUSES[status]}", f"{number:,}"


def _costs(cost: Cost) -> Iterator[tuple[str, str]]:
    calls = (f"{cost.calls:,}", f"{cost.calls_a_second:.0f}", f"{cost.busiest_calls_a_second:.0f}")
    times = [f"{seconds * 1000:.0f}" for seconds in (cost.call_p50, cost.call_p95, cost.call_max)]
    why = ", ".join(f"{why} {count}" for why, count in sorted(cost.failures.items()))
    yield "virtual time at speed", f"{cost.virtual_seconds / 3600:.2f} h at x{cost.speed:g}"
    yield "real time", f"{cost.wall_seconds:.1f} s"
    yield "calls, a second, at most", ", ".join(calls)
    yield "call P50 / P95 / max", " / ".join(times) + " ms"
    yield "repeated, same answer", f"{cost.repeats:,}"
    yield "sent again for want of one", f"{cost.retries:,}" + (f" ({why})" if why else "")
    yield "numbers late, P95", f"{cost.late_p95:.1f} s virtual"
    yield "the simulator's own CPU", f"{cost.own_cpu_seconds:.1f} s"
    yield "report caught up after", f"{cost.settled_after:.2f} s"


def _minutes(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / 60:.1f} min"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _worst(outcome: Outcome) -> Table:
    """List the units where the promise was kept least."""
    table = _table("Worst units", "unit", "tickets", "P50", "P95", "max", "within 20 min")
    by_unit: dict[str, dict[str, Any]] = {unit: {} for unit in outcome.units}
    for line in outcome.lines:
        if line.row in by_unit and line.name.startswith("queue."):
            by_unit[line.row][line.name.removeprefix("queue.")] = line.ours
    decided = {
        unit: row for unit, row in by_unit.items() if row.get("share_within_sla") is not None
    }
    worst = sorted(
        decided.items(),
        key=lambda item: (item[1]["share_within_sla"], -(item[1]["wait_p95_seconds"] or 0)),
    )
    for unit, row in worst[:_WORST]:
        waits = [_minutes(row[f"wait_{name}_seconds"]) for name in ("p50", "p95", "max")]
        table.add_row(unit, str(row["tickets"]), *waits, _percent(row["share_within_sla"]))
    return table


def _beside(city: dict[str, Line]) -> Table:
    table = _table("The city's week", "figure", "ledger", "report", "")
    for line in city.values():
        table.add_row(line.name, str(line.ours), str(line.theirs), "" if line.same else "DIFFERS")
    return table


def _verdict(outcome: Outcome, out: Console) -> None:
    differing, ledger = outcome.differences, outcome.ledger
    told = [
        f"{line.row}  {line.name}: ledger {line.ours}, report {line.theirs}" for line in differing
    ]
    if outcome.interrupted:
        out.print("stopped before its end: this is what there is")
    for title, found in (
        ("broken promises", ledger.violations),
        ("requests nobody answered, so that their effect is unknown", ledger.unsettled),
        ("differences", told),
    ):
        if found:
            out.print(f"{len(found)} {title}:", style="bold red", markup=False)
            for text in found[:_SHOWN]:
                out.print(f"  {text}", markup=False, soft_wrap=True)
            if len(found) > _SHOWN:
                out.print(f"  ... and {len(found) - _SHOWN} more")
    agreed = len(outcome.lines) - len(differing)
    out.print(f"{agreed:,} of {len(outcome.lines):,} lines agree exactly.", style="bold")

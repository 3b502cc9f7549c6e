"""`motcua rebuild`: a service's tables made anew from the events, while it goes on."""

import sys
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from libs.common import faults
from libs.common.bus.opening import open_bus
from libs.common.rebuild import Projections, RebuildRefused, Rebuilt, rebuild
from libs.common.settings import Settings
from services.cli.surroundings import (
    FAILED,
    Json,
    print_json,
    run,
    settings_of_city,
    stop,
)
from services.consumers import ROUTERS
from services.reporting.models import PROJECTIONS

commands = typer.Typer(no_args_is_help=True, help="Make a service's tables anew from the events.")

REPORTING = Projections("reporting", ROUTERS["reporting"], PROJECTIONS)
STILL = "the tables in use are as they were; it can simply be run again"


@commands.command()
def reporting(
    as_json: Json = False,
    allow_losses: Annotated[
        bool,
        typer.Option("--allow-losses", help="Also drop rows whose events the bus no longer holds."),
    ] = False,
) -> None:
    """Make reporting's figures anew from every event since the beginning.

    Reports are answered from the old tables until the new ones take their place, all at once. For
    after a defect in counting was mended, or when tables were damaged. It needs the account that
    `motcua migrate` uses.
    """
    settings = settings_of_city()
    faults.arm(settings.fault)
    try:
        with _Shown() as shown:
            done = run(
                settings,
                _rebuild(settings, shown, allow_losses=allow_losses),
                within=None,
                interrupted=f"stopped: {STILL}",
            )
    except RebuildRefused as refusal:
        raise stop(f"{refusal}; {STILL}", FAILED) from None
    _report(done, as_json=as_json)


async def _rebuild(settings: Settings, shown: "_Shown", *, allow_losses: bool) -> Rebuilt:
    async with open_bus(settings, REPORTING.service) as bus:
        return await rebuild(settings, REPORTING, bus, told=shown, allow_losses=allow_losses)


def _report(done: Rebuilt, *, as_json: bool) -> None:
    rate = round(done.events / done.seconds)
    if as_json:
        print_json(
            {
                "service": REPORTING.service,
                "events": done.events,
                "seconds": round(done.seconds, 3),
                "events_per_second": rate,
                "waited_seconds": round(done.waited_seconds, 3),
                "dead_letters": done.dead_letters,
                "rows": done.rows,
            }
        )
        return
    rows = ", ".join(f"{count} {table}" for table, count in done.rows.items())
    print(f"reporting is rebuilt from {done.events} events: {rows}")
    print(
        f"{done.seconds:.1f} s, {rate} events/s; new events waited for {done.waited_seconds:.2f} s"
    )
    if done.dead_letters:
        print(f"{done.dead_letters} event(s) could not be applied: see `motcua dlq list`")


class _Shown:
    """How far it has come, on standard error: a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._terminal = console.is_terminal
        self._bar = Progress(
            TextColumn("reporting"), BarColumn(), MofNCompleteColumn(), TextColumn("events"),
            TimeRemainingColumn(), console=console, disable=not self._terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("")
        self._told_at = monotonic()

    def __enter__(self) -> "_Shown":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, read: int, all_: int) -> None:
        """Show that so many of all records have been read."""
        self._bar.update(self._task, completed=read, total=all_)
        if not self._terminal and monotonic() - self._told_at >= 2:
            self._told_at = monotonic()
            print(f"reporting: {read} of {all_} events", file=sys.stderr, flush=True)

"""What an answer to a hostile request must look like, and the count of those that do."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.hostile.house import House, Rows
from tests.serving import Answer

LEAKS = (
    b"Traceback", b'File "', b"site-packages", b"sqlalchemy", b"asyncpg", b"pydantic.dev",
    b"INSERT INTO", b"SELECT ", b"UPDATE ", b"postgresql://", b"audit.entries",
)  # fmt: skip
"""What tells how we are built."""

MALFORMED = frozenset({422})
NOT_HTTP = frozenset({400})
REFUSED = frozenset({400, 401, 403, 404, 405, 409, 413, 414, 415, 422, 431})
"""What the contract has for a request that is not as it should be."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile request, and how the contract says that it ends."""

    what: str
    request: bytes
    statuses: frozenset[int] = MALFORMED
    field: str | None = None
    """Must be named among the problem's `errors`."""
    hidden: tuple[str, ...] = ()
    """What no part of the answer may repeat."""
    bare: bool = False
    """Not even HTTP: the server may say so in plain text, or hang up."""
    noted: bool = False
    """A named caller is refused by a service: the audit keeps one line of it."""


Attacks = AsyncIterator[Attack]
Family = Callable[[House], Attacks]


def wrong_with(attack: Attack, answer: Answer) -> str | None:
    """Say what is wrong with an answer, or None."""
    if answer.status == 0:
        return None if attack.bare else "no answer"
    if answer.status not in attack.statuses:
        return f"{answer.status} instead of {sorted(attack.statuses)}"
    whole = answer.body + repr(answer.headers).encode()
    leaks = [word for word in (*LEAKS, *(h.encode() for h in attack.hidden)) if word in whole]
    if leaks:
        return f"the answer shows {leaks}"
    if any(name.startswith("x-injected") for name, _ in answer.headers):
        return "a header of the caller's is in the answer"
    if answer.status < 400 or attack.request.startswith(b"HEAD "):
        return None
    return _wrong_with_problem(attack, answer)


def _wrong_with_problem(attack: Attack, answer: Answer) -> str | None:
    if answer.all("content-type") != ["application/problem+json"]:
        return None if attack.bare else f"no problem but {answer.all('content-type')}"
    problem = json.loads(answer.body)
    if missing := {"type", "title", "status", "detail", "trace_id"} - problem.keys():
        return f"the problem lacks {missing}"
    if problem["status"] != answer.status:
        return f"the problem calls itself {problem['status']}"
    if answer.all("x-trace-id") != [problem["trace_id"]]:
        return f"trace {problem['trace_id']} in the problem, {answer.all('x-trace-id')} outside"
    named = {error["field"] for error in problem.get("errors", ())}
    if attack.field is not None and not _names(named, attack.field):
        return f"{attack.field} is not among the fields {named}"
    return None


def _names(named: set[str], field: str) -> bool:
    return any(name == field or name.startswith(f"{field}.") for name in named)


@dataclass
class Tally:
    """The account of a run."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    """By family."""
    wrong: list[str] = field(default_factory=list)

    def count(self, family: str, attack: Attack, answer: Answer) -> None:
        """Judge an answer and count it."""
        self.statuses.setdefault(family, Counter())[answer.status] += 1
        if (problem := wrong_with(attack, answer)) is not None:
            shown = attack.request[:300]
            self.blame(family, f"{attack.what}: {problem}\n  {shown!r}\n  {answer.body[:400]!r}")

    def blame(self, family: str, problem: str) -> None:
        """Note what should not be."""
        self.wrong.append(f"[{family}] {problem}")

    @property
    def total(self) -> int:
        """How many requests were sent."""
        return sum(counter.total() for counter in self.statuses.values())

    def line(self, family: str) -> str:
        """Write one family's counts."""
        counter = self.statuses[family]
        each = ", ".join(f"{n} x {status or 'no answer'}" for status, n in sorted(counter.items()))
        return f"{family}: {counter.total()} requests ({each})"

    def table(self) -> str:
        """Write the counts, a line to a family."""
        seen = sorted({status for counter in self.statuses.values() for status in counter})
        heads = ["no answer" if status == 0 else str(status) for status in seen]
        lines = [f"{'family':<12} requests  " + "  ".join(f"{head:>5}" for head in heads)]
        for family, counter in [*self.statuses.items(), ("all", self._all())]:
            cells = (
                f"{counter[s] or '':>{max(5, len(h))}}" for s, h in zip(seen, heads, strict=True)
            )
            lines.append(f"{family:<12} {counter.total():>8}  " + "  ".join(cells))
        lines.append(f"{len(self.wrong)} not as they should be")
        return "\n".join(lines)

    def _all(self) -> Counter[int]:
        return sum(self.statuses.values(), Counter())


async def run(house: House, name: str, family: Family, tally: Tally, every: int = 1) -> None:
    """Send a family's attacks, or every so many of them: each is refused and changes nothing."""
    before = await house.settled()
    kept: dict[str, Attack] = {}
    number = 0
    async for attack in family(house):
        number += 1
        if number % every:
            continue
        answer = await house.exchange(attack.request, within=0.5 if attack.bare else 20)
        tally.count(name, attack, answer)
        for trace in answer.all("x-trace-id"):
            kept[trace] = attack
    for change in changes(before, await house.state()):
        tally.blame(name, f"something changed: {change}")
    await _compare_audit(house, name, kept, tally)
    await house.assert_serving()


def changes(before: Rows, after: Rows) -> list[str]:
    """Name the tables that are not as they were."""
    return [
        f"{table}: {before.get(table)} became {after[table]}"
        for table in after
        if after[table] != before.get(table)
    ]


async def _compare_audit(house: House, name: str, kept: dict[str, Attack], tally: Tally) -> None:
    """Hold the audit against what was sent: nothing was done, refusals of named callers stand."""
    rows = await house.noted(list(kept))
    for row in rows:
        attack = kept[row["trace_id"]]
        found = attack.request.startswith(b"GET ") and row["status"] == 200
        if row["outcome"] != "refused" and not found:
            tally.blame(name, f"{attack.what}: the audit says {dict(row)}")
    lines = Counter(row["trace_id"] for row in rows)
    for trace, attack in kept.items():
        if attack.noted and lines[trace] != 1:
            tally.blame(name, f"{attack.what}: {lines[trace]} lines in the audit instead of one")

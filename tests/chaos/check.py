"""Holds everything that is stored against the ledger: what is missing, twice, or different."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

import asyncpg

from libs.common.bus.base import Bus
from libs.common.dead_letters import list_dead_letters
from libs.common.settings import SERVICES
from libs.contracts import topics
from libs.contracts.queue import VisitEvent
from tests.chaos.ledger import Fact, Ledger
from tests.chaos.report import Expected
from tests.common.things import all_of

FACTS = {"queue.tickets.v1": "ticket_id", "intake.dossiers.v1": "code"}
"""The topics of the load's facts, and what names the aggregate in their events."""

TIMES_OF_TICKET = ("issued_at", "due_at", "called_at", "started_at", "ended_at")
TIMES_OF_DOSSIER = ("submitted_at", "received_at", "appointment_at", "ended_at", "returned_at")


@dataclass
class Findings:
    """What is not as it should be, in sentences; each list is empty when all is well."""

    lost: list[str] = field(default_factory=list)
    """Acknowledged and not stored, or announced by nobody."""
    unknown: list[str] = field(default_factory=list)
    """Stored and never acknowledged."""
    duplicates: list[str] = field(default_factory=list)
    double_calls: list[str] = field(default_factory=list)
    """Steps that do not follow from the one before: called while at a counter, and the like."""
    gaps: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    overlooked: list[str] = field(default_factory=list)
    events: int = 0
    sent_again: int = 0
    """Records on the bus that repeat an event; readers drop them."""

    def all(self) -> list[str]:
        """Give everything that is wrong."""
        return [
            f"{name}: {words}"
            for name in (
                "lost", "unknown", "duplicates", "double_calls", "gaps", "differences", "surprises",
                "overlooked",
            )
            for words in getattr(self, name)
        ]  # fmt: skip

    def compare(self, what: str, wanted: Any, found: Any) -> None:
        """Note two values that differ."""
        if wanted != found:
            self.differences.append(f"{what}: the ledger says {wanted!r}, stored is {found!r}")

    def same_set(self, what: str, wanted: Iterable[Any], found: Iterable[Any]) -> None:
        """Note what is only on one side."""
        wanted, found = set(wanted), set(found)
        self.lost += [f"{what} {item}" for item in sorted(wanted - found)]
        self.unknown += [f"{what} {item}" for item in sorted(found - wanted)]

    def dense(self, what: str, numbers: Iterable[int], last: int | None) -> None:
        """Note what is missing between 1 and the last number given, and what is there twice."""
        counted = Counter(numbers)
        self.duplicates += [f"{what}: {number}" for number, times in counted.items() if times > 1]
        self.gaps += [f"{what}: {n}" for n in range(1, (last or 0) + 1) if n not in counted]
        self.compare(f"{what}: the last number given", max(counted, default=0), last or 0)


async def settled(
    url: str, bus: Bus, services: Iterable[str] = SERVICES, *, within: float = 60
) -> None:
    """Wait until every event has left its outbox and every group has handled all that is its."""
    connection = await asyncpg.connect(url)
    try:
        end = monotonic() + within
        while behind := await _behind(connection, bus, services):
            assert monotonic() < end, f"not settled within {within} s: {behind}"
            await asyncio.sleep(0.02)
    finally:
        await connection.close()


async def _behind(connection: Any, bus: Bus, services: Iterable[str]) -> dict[str, int]:
    # Loads are measured every second for ever: only the load's own facts must have come through.
    waits = {
        f"outbox of {service}": await connection.fetchval(
            f"SELECT count(*) FROM {service}.outbox WHERE topic <> 'queue.load.v1'"
        )
        for service in services
    }
    if "reporting" in services:
        # The queue hears of receipts, and what it then tells is counted by reporting in its turn.
        waits["queue"] = sum((await bus.lag("queue", ["intake.dossiers.v1"])).values())
        told = [*FACTS, VisitEvent.topic]
        waits["reporting"] = sum((await bus.lag("reporting", told)).values())
    return {name: count for name, count in waits.items() if count}


async def check(
    url: str, bus: Bus, ledger: Ledger, *, services: Iterable[str] = SERVICES
) -> Findings:
    """Compare what is stored in a settled city with what was acknowledged."""
    findings = Findings(
        surprises=list(ledger.surprises), overlooked=ledger.overlooked + ledger.left_uncalled()
    )
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await _check_queue(connection, ledger, findings)
            if "intake" in services:
                await _check_intake(connection, ledger, findings)
            await _check_answers(connection, ledger, findings, services)
            ids = await _check_bus(bus, ledger, findings)
            if "reporting" in services:
                await _check_reporting(connection, ledger, findings, ids)
    finally:
        await connection.close()
    return findings


# The services' own tables ---------------------------------------------------------------------


async def _check_queue(connection: Any, ledger: Ledger, findings: Findings) -> None:
    rows = await connection.fetch("SELECT * FROM queue.tickets")
    stored = {str(row["id"]): row for row in rows}
    findings.same_set("ticket", ledger.tickets, stored)
    same = (
        "number", "unit", "series", "status", "version", "counter", "channel", "for_counter",
        "reissues", "cancel_cause",
    )  # fmt: skip
    for ticket in ledger.tickets.keys() & stored.keys():
        _same_row(findings, ticket, ledger.tickets[ticket], stored[ticket], same, TIMES_OF_TICKET)
    last = {
        (row["unit"], row["series"], row["business_day"]): row["last"]
        for row in await connection.fetch("SELECT * FROM queue.ticket_numbers")
    }
    given: dict[Any, list[int]] = defaultdict(list)
    for row in rows:
        # Who was sent to another series keeps the number.
        given[row["unit"], row["number"][0], row["business_day"]].append(row["sequence"])
    for place in given.keys() | last.keys():
        findings.dense(f"numbers of {place[0]} {place[1]}", given[place], last.get(place))
    told = Counter((t["unit"], t["business_day"], t["number"]) for t in ledger.tickets.values())
    findings.duplicates += [f"number {number}" for number, times in told.items() if times > 1]
    findings.double_calls += ledger.broken_lives()


async def _check_intake(connection: Any, ledger: Ledger, findings: Findings) -> None:
    rows = await connection.fetch("SELECT * FROM intake.dossiers")
    stored = {row["code"]: row for row in rows}
    findings.same_set("dossier", ledger.dossiers, stored)
    same = (
        "status", "version", "channel", "receiving_unit", "competent_unit", "components_handed_in",
        "components_digitised",
    )  # fmt: skip
    for code in ledger.dossiers.keys() & stored.keys():
        _same_row(findings, code, ledger.dossiers[code], stored[code], same, TIMES_OF_DOSSIER)
    lines = await connection.fetch("SELECT dossier_code, version FROM intake.hand_overs")
    findings.same_set(
        "line of the control slip",
        {(code, version) for code, version, _ in ledger.facts if code in ledger.dossiers},
        {(row["dossier_code"], row["version"]) for row in lines},
    )
    given: dict[Any, list[int]] = defaultdict(list)
    for code in stored:
        unit, day, sequence = code.split("-")
        given[unit, day].append(int(sequence))
    last = {
        (row["unit"], row["day"].strftime("%y%m%d")): row["last"]
        for row in await connection.fetch("SELECT * FROM intake.dossier_sequences")
    }
    for place in given.keys() | last.keys():
        findings.dense(f"dossiers of {place[0]}", given[place], last.get(place))


def _same_row(
    findings: Findings,
    name: str,
    told: Mapping[str, Any],
    row: Mapping[str, Any],
    same: Iterable[str],
    times: Iterable[str],
) -> None:
    for column in same:
        findings.compare(f"{name} {column}", told[column], row[column])
    for column in times:
        findings.compare(f"{name} {column}", instant(told[column]), row[column])


def instant(text: str | None) -> datetime | None:
    """Read an answer's instant."""
    return None if text is None else datetime.fromisoformat(text)


async def _check_answers(
    connection: Any, ledger: Ledger, findings: Findings, services: Iterable[str]
) -> None:
    """Look for keys: one for each acknowledged effect, each with its answer."""
    kept = unanswered = 0
    for service in services:
        row = await connection.fetchrow(
            "SELECT count(*) AS kept, count(*) FILTER (WHERE answer IS NULL) AS unanswered "
            f"FROM {service}.idempotency_keys"
        )
        kept, unanswered = kept + row["kept"], unanswered + row["unanswered"]
    findings.compare("answers kept", ledger.keys, kept)
    findings.compare("keys without an answer", 0, unanswered)


# The bus --------------------------------------------------------------------------------------


async def _check_bus(bus: Bus, ledger: Ledger, findings: Findings) -> set[str]:
    """Look for exactly one event per fact, in order; give the ids of the events."""
    ids: set[str] = set()
    facts: Counter[Fact] = Counter()
    for topic, name in FACTS.items():
        newest: dict[str, int] = {}
        for record in await all_of(bus, topic):
            if record.headers["ce_id"] in ids:
                findings.sent_again += 1
                continue
            ids.add(record.headers["ce_id"])
            kind, data = record.headers["ce_type"], json.loads(record.value or b"")
            facts[data[name], data["version"], kind] += 1
            if data["version"] != newest.get(data[name], 0) + 1:
                findings.differences.append(
                    f"{kind} of {data[name]}: version {data['version']} follows "
                    f"{newest.get(data[name], 0)} on the bus"
                )
            newest[data[name]] = data["version"]
    findings.events = len(ids)
    ids |= await _check_visits(bus, findings)
    findings.same_set("event", ledger.facts, facts)
    for counted, where in ((ledger.facts, "acknowledged"), (facts, "announced")):
        findings.duplicates += [f"{where}: {fact}" for fact, n in counted.items() if n > 1]
    letters = await list_dead_letters(bus, [topic.name for topic in topics.FACTS])
    findings.compare("dead letters", 0, len(letters))
    return ids


async def _check_visits(bus: Bus, findings: Findings) -> set[str]:
    """Look for one receipt at most per ticket, whoever heard of the dossier; give the ids."""
    ids: set[str] = set()
    receipts: Counter[str] = Counter()
    for record in await all_of(bus, VisitEvent.topic):
        if record.headers["ce_id"] not in ids:
            ids.add(record.headers["ce_id"])
            receipts[json.loads(record.value or b"")["ticket_id"]] += 1
    findings.duplicates += [f"receipt of {ticket}" for ticket, n in receipts.items() if n > 1]
    return ids


# Reporting ------------------------------------------------------------------------------------


async def _check_reporting(
    connection: Any, ledger: Ledger, findings: Findings, ids: set[str]
) -> None:
    claims = await connection.fetch("SELECT event_id FROM reporting.inbox")
    findings.same_set("claim of event", ids, {str(row["event_id"]) for row in claims})
    tickets = {
        str(row["ticket_id"]): row
        for row in await connection.fetch("SELECT * FROM reporting.tickets")
    }
    findings.same_set("reported ticket", ledger.tickets, tickets)
    for ticket in ledger.tickets.keys() & tickets.keys():
        told, row = ledger.tickets[ticket], tickets[ticket]
        _same_row(
            findings, f"reported {ticket}", told, row,
            ("unit", "version", "status"), ("issued_at", "ended_at"),
        )  # fmt: skip
        findings.compare(
            f"reported wait of {ticket}", told["wait_seconds"], row["first_wait_seconds"]
        )
    dossiers = {
        row["code"]: row for row in await connection.fetch("SELECT * FROM reporting.dossiers")
    }
    findings.same_set("reported dossier", ledger.dossiers, dossiers)
    for code in ledger.dossiers.keys() & dossiers.keys():
        _same_row(
            findings, f"reported {code}", ledger.dossiers[code], dossiers[code],
            ("version", "status", "channel", "receiving_unit", "competent_unit"), TIMES_OF_DOSSIER,
        )  # fmt: skip


def check_report(report: Mapping[str, Any], ledger: Ledger, findings: Findings) -> None:
    """Compare the weekly report, figure by figure, with the same figures counted here."""
    expected = Expected(ledger, datetime.fromisoformat(report["from"]), report)
    for row in (report["city"], *report["units"]):
        unit = row.get("unit")
        for name, wanted in expected.figures(unit).items():
            group, _, figure = name.rpartition(".")
            found = (row[group] if group else row)[figure]
            findings.compare(f"weekly report, {unit or 'city'}, {name}", wanted, found)
    findings.compare("identity of the report", True, report["identity"]["holds"])

"""The weekly report counted a second time, from the ledger alone (definitions: `forms`)."""

import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from libs.common.worktime import ZONE
from tests.chaos.ledger import Ledger

SLA_SECONDS = 1200


class Expected:
    """The figures of a fresh city whose every visit the ledger knows."""

    def __init__(self, ledger: Ledger, begins: datetime, report: Mapping[str, Any]) -> None:
        """Take the ledger and the week of a report."""
        ends = datetime.fromisoformat(report["to"])
        self._today = day(report["as_of"])
        self._tickets = [
            ticket
            for ticket in ledger.tickets.values()
            if begins <= datetime.fromisoformat(ticket["issued_at"]) < ends
        ]
        self._dossiers = [
            dossier
            for dossier in ledger.dossiers.values()
            if dossier["received_at"]
            and begins <= datetime.fromisoformat(dossier["received_at"]) < ends
        ]

    def figures(self, unit: str | None) -> dict[str, Any]:
        """Give what stands in a unit's row, or in the city's."""
        return self._queue(unit) | self._intake(unit)

    def _queue(self, unit: str | None) -> dict[str, Any]:
        tickets = [ticket for ticket in self._tickets if unit in (None, ticket["unit"])]
        waits = sorted(t["wait_seconds"] for t in tickets if t["wait_seconds"] is not None)
        statuses = [ticket["status"] for ticket in tickets]
        return {
            "queue.tickets": sum(t["transferred_from"] is None for t in tickets),
            "queue.transferred_in": sum(t["transferred_from"] is not None for t in tickets),
            "queue.called": len(waits),
            "queue.finished": statuses.count("finished"),
            "queue.no_show": statuses.count("no_show"),
            "queue.cancelled": statuses.count("cancelled"),
            "queue.within_sla": sum(wait <= SLA_SECONDS for wait in waits),
            "queue.wait_p50_seconds": nearest_rank(waits, 0.5),
            "queue.wait_p95_seconds": nearest_rank(waits, 0.95),
            "queue.wait_max_seconds": nearest_rank(waits, 1),
        }

    def _intake(self, unit: str | None) -> dict[str, Any]:
        dossiers = [d for d in self._dossiers if unit in (None, d["competent_unit"])]
        ended = [d for d in dossiers if d["ended_at"]]
        late_by = [(day(d["ended_at"]) - day(d["appointment_at"])).days for d in ended]
        online = sum(dossier["channel"] == "online" for dossier in dossiers)
        due = [day(d["appointment_at"]) for d in dossiers if not d["ended_at"]]
        return {
            "received.total": len(dossiers),
            "received.online": online,
            "received.direct": len(dossiers) - online,
            "resolved.total": len(ended),
            "resolved.early": sum(days < 0 for days in late_by),
            "resolved.on_time": late_by.count(0),
            "resolved.late": sum(days > 0 for days in late_by),
            "pending.total": len(due),
            "pending.overdue": sum(last < self._today for last in due),
            "returned": sum(dossier["returned_at"] is not None for dossier in dossiers),
            "digitisation.components": sum(d["components_handed_in"] for d in dossiers),
            "digitisation.digitised": sum(d["components_digitised"] for d in dossiers),
        }


def day(text: str) -> date:
    """Give the local day of an answer's instant."""
    return datetime.fromisoformat(text).astimezone(ZONE).date()


def nearest_rank(waits: list[float], share: float) -> float | None:
    """Give the ceil(share x n)-th of n waits in ascending order."""
    return waits[math.ceil(share * len(waits)) - 1] if waits else None

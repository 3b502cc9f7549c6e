"""What clients were told: the account against which everything stored is held."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Fact = tuple[str, int, str]
"""A ticket's id or a dossier's code, its version, and the type of the event that tells of it."""

TICKET_EVENTS = {
    "call-next": "TicketCalled",
    "start": "TicketStarted",
    "finish": "TicketFinished",
    "no-show": "TicketNoShow",
    "cancel": "TicketCancelled",
}
DOSSIER_EVENTS = {
    "receive": "DossierReceived",
    "assign": "DossierAssigned",
    "complete": "DossierCompleted",
    "return": "DossierReturned",
}


@dataclass
class Ledger:
    """Acknowledged writes alone: the newest answer of each ticket and dossier, and every fact."""

    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    dossiers: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: Counter[Fact] = field(default_factory=Counter)
    keys: int = 0
    """Requests that had an effect: each has kept its answer."""
    counts: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    """Answers that nobody should ever get."""
    overlooked: list[str] = field(default_factory=list)
    """Who waited all the time while a counter was told that nobody does."""
    moments: list[tuple[float, float]] = field(default_factory=list)
    """When the attempt that was acknowledged was sent, and when its answer came (monotonic)."""
    _standing: dict[str, dict[str, "_Waiting"]] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def issued(self, ticket: dict[str, Any], at: float) -> None:
        """Note a new ticket; `at` is when its answer had come."""
        self._ticket(ticket, "TicketIssued")
        # Who issued it may hear of it after who called it.
        if ticket["id"] not in self._taken:
            self._standing.setdefault(ticket["unit"], {})[ticket["id"]] = _Waiting(at)

    def moved(self, step: str, ticket: dict[str, Any], began: float) -> None:
        """Note a step of a ticket; `began` is when it was first asked for."""
        self._ticket(ticket, TICKET_EVENTS[step])
        if step not in ("call-next", "cancel"):
            return
        if ticket["id"] in self._taken:
            self.surprises.append(f"{ticket['number']} was taken out of the queue twice")
        self._taken.add(ticket["id"])
        stood = self._standing.get(ticket["unit"], {}).pop(ticket["id"], None)
        if stood and stood.nobody_at < began:
            self.overlooked.append(ticket["number"])

    def nobody(self, unit: str, asked: float, answered: float) -> None:
        """Note that a counter was told that nobody waits."""
        self.counts["told nobody waits"] += 1
        for waiting in self._standing.get(unit, {}).values():
            if waiting.since < asked:
                waiting.nobody_at = min(waiting.nobody_at, answered)

    def dossier(self, step: str | None, dossier: dict[str, Any]) -> None:
        """Note a dossier that came in (no step) or went on."""
        came = "DossierSubmitted" if dossier["status"] == 1 else "DossierReceived"
        self.dossiers[dossier["code"]] = dossier
        name = DOSSIER_EVENTS[step] if step else came
        self.facts[dossier["code"], dossier["version"], name] += 1
        self.keys += 1
        self.counts["dossiers taken in" if step is None else "steps of dossiers"] += 1

    def waiting(self, unit: str) -> int:
        """Count who waits in a unit, as far as is known here."""
        return len(self._standing.get(unit, ()))

    def left_uncalled(self) -> list[str]:
        """List who was passed over and still waits."""
        return [
            self.tickets[ticket]["number"]
            for unit in self._standing.values()
            for ticket, waiting in unit.items()
            if waiting.nobody_at < float("inf")
        ]

    def recovered(self, since: float, place: int) -> float | None:
        """Give the seconds from an instant to the first acknowledgement of what was sent later.

        `place` is how many moments had been noted at that instant.
        """
        return next((came - since for sent, came in self.moments[place:] if sent > since), None)

    def _ticket(self, ticket: dict[str, Any], event: str) -> None:
        known = self.tickets.get(ticket["id"])
        if known is None or known["version"] < ticket["version"]:
            self.tickets[ticket["id"]] = ticket
        self.facts[ticket["id"], ticket["version"], event] += 1
        self.keys += 1
        self.counts["tickets" if event == "TicketIssued" else event] += 1


@dataclass
class _Waiting:
    """Somebody in the queue: known since, and the first time a counter was told of nobody."""

    since: float
    nobody_at: float = float("inf")

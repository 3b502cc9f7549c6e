"""What clients were told: the account against which everything stored is held."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.client import Answer

Fact = tuple[str, int, str]
"""A ticket's id or a dossier's code, its version, and the type of the event that tells of it."""

TICKET_EVENTS = {
    "call-next": "TicketCalled",
    "start": "TicketStarted",
    "finish": "TicketFinished",
    "no-show": "TicketNoShow",
    "cancel": "TicketCancelled",
    "print-failed": "TicketCancelled",
    "reissue": "TicketReissued",
    "recall": "TicketCalled",
    "call": "TicketCalled",
    "park": "TicketParked",
    "return": "TicketReturned",
    "hand-back": "TicketReturned",
    "transfer": "TicketTransferred",
}
LEAVES = ("call-next", "call", "cancel", "print-failed", "transfer")
"""Steps that may take somebody out of the queue."""

LIFE = {
    "issue": ("", "waiting"),
    "call-next": ("waiting", "called"),
    "call": ("waiting parked no_show", "called"),
    "recall": ("called no_show", "called"),
    "start": ("called", "serving"),
    "finish": ("serving", "finished"),
    "no-show": ("called", "no_show"),
    "park": ("called serving", "parked"),
    "return": ("parked no_show", "waiting"),
    "hand-back": ("called serving", "waiting"),
    "transfer": ("waiting called serving parked", "waiting transferred"),
    "cancel": ("waiting parked", "cancelled"),
    "print-failed": ("waiting", "cancelled"),
    "reissue": ("waiting cancelled", "waiting"),
}
"""Each step of a ticket: from which states it is allowed, and what the ticket is afterwards."""
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
    lives: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)
    """By ticket and version: the step, and the status that it led to."""
    _standing: dict[str, dict[str, "_Waiting"]] = field(default_factory=dict)

    def issued(self, ticket: dict[str, Any], at: float, *, linked: bool = False) -> None:
        """Note a new ticket; `at` is when its answer had come. A linked one has no key of its
        own."""
        newest = self._ticket(ticket, "issue")
        self.keys += not linked
        self.counts["linked tickets" if linked else "tickets"] += 1
        if newest:
            self._stands(ticket, at)

    def moved(self, step: str, answer: "Answer") -> None:
        """Note a step of a ticket."""
        ticket = dict(answer.body)
        linked = ticket.pop("linked_ticket", None)
        newest = self._ticket(ticket, step)
        self.keys += 1
        self.counts[TICKET_EVENTS[step]] += 1
        if linked is not None:
            self.issued(linked, answer.came, linked=True)
        if step in LEAVES:
            stood = self._standing.get(ticket["unit"], {}).pop(ticket["id"], None)
            if stood and stood.nobody_at < answer.began:
                self.overlooked.append(ticket["number"])
        if newest and ticket["status"] == "waiting":
            self._stands(ticket, answer.came)

    def _stands(self, ticket: dict[str, Any], at: float) -> None:
        """Note that somebody waits; who waits for one counter is no concern of the others."""
        waiting = _Waiting(at, ticket["for_counter"])
        self._standing.setdefault(ticket["unit"], {})[ticket["id"]] = waiting

    def nobody(self, unit: str, counter: int, asked: float, answered: float) -> None:
        """Note that a counter was told that nobody waits."""
        self.counts["told nobody waits"] += 1
        for waiting in self._standing.get(unit, {}).values():
            if waiting.since < asked and waiting.for_counter in (None, counter):
                waiting.nobody_at = min(waiting.nobody_at, answered)

    def broken_lives(self) -> list[str]:
        """List the steps that do not follow from the one before: somebody called twice at once.

        A counter that closes lets who waits for it alone go, and nobody is answered; such a change
        is not among those that are known here.
        """
        found = []
        for ticket, life in self.lives.items():
            before = ""
            for version, (step, status) in sorted(life.items()):
                allowed, after = LIFE[step]
                if before not in (allowed.split() or [""]) or status not in after.split():
                    number = self.tickets[ticket]["number"]
                    found.append(f"{number} from {before or 'nothing'} by {step} (v{version})")
                before = status
        return found

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

    def _ticket(self, ticket: dict[str, Any], step: str) -> bool:
        """Enter an answer; tell whether nothing newer of the ticket is known."""
        event = "TicketIssued" if step == "issue" else TICKET_EVENTS[step]
        known = self.tickets.get(ticket["id"])
        newest = known is None or known["version"] < ticket["version"]
        if newest:
            self.tickets[ticket["id"]] = ticket
        self.facts[ticket["id"], ticket["version"], event] += 1
        self.lives.setdefault(ticket["id"], {})[ticket["version"]] = (step, ticket["status"])
        return newest


@dataclass
class _Waiting:
    """Somebody in the queue: known since, and the first time a counter was told of nobody."""

    since: float
    for_counter: int | None = None
    nobody_at: float = float("inf")

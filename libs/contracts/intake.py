"""What intake announces: one event per transition of a dossier, with its state and no person."""

from datetime import datetime
from enum import IntEnum
from typing import ClassVar
from uuid import UUID

from libs.common.events import Event


class DossierStatus(IntEnum):
    """National status codes of a dossier (trạng thái hồ sơ)."""

    submitted = 1
    received = 2
    refused = 3
    processing = 4
    supplement_requested = 5
    payment_requested = 6
    withdrawn = 7
    stopped = 8
    processed = 9
    returned = 10


class DossierEvent(Event):
    """The state of a dossier (hồ sơ) after a transition; `version` counts them from 1."""

    topic: ClassVar[str] = "intake.dossiers.v1"
    producer: ClassVar[str] = "intake"

    code: str
    version: int
    at: datetime
    status: DossierStatus
    procedure_code: str
    field: str
    receiving_unit: str
    competent_unit: str
    channel: str
    boundary_independent: bool
    submitted_at: datetime
    received_at: datetime | None = None
    appointment_at: datetime | None = None
    ended_at: datetime | None = None
    returned_at: datetime | None = None
    supplement_requests: int = 0
    components: int = 0
    components_digitised: int = 0
    components_reused: int = 0
    ticket_id: UUID | None = None
    """The place in the queue that it was handed in from."""

    @property
    def key(self) -> str:
        """Order is kept per dossier."""
        return self.code


class DossierSubmitted(DossierEvent):
    """A dossier came in online and waits to be received."""


class DossierReceived(DossierEvent):
    """A dossier is complete and correct; its limit runs."""


class DossierAssigned(DossierEvent):
    """Somebody works on it."""


class DossierCompleted(DossierEvent):
    """Its processing has ended."""


class DossierReturned(DossierEvent):
    """The result is in the applicant's hands."""


DOSSIER_EVENTS: tuple[type[DossierEvent], ...] = (
    DossierSubmitted, DossierReceived, DossierAssigned, DossierCompleted, DossierReturned,
)  # fmt: skip

"""What the registry announces: whole states on compacted topics, newest version wins."""

from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from libs.common.events import Event
from libs.common.worktime import Limit, OpeningHours

COMMUNE_TYPES = ("ward", "commune", "special_zone")
"""The kinds of unit that receive citizens since 1 July 2025 (phường, xã, đặc khu)."""


class UnitStatus(StrEnum):
    """Where a unit is in its life; a closed code is never issued again."""

    planned = "planned"
    active = "active"
    closed = "closed"


class Level(StrEnum):
    """The level of government that is competent for a procedure."""

    commune = "commune"
    province = "province"
    ministry = "ministry"


class Value(BaseModel):
    """A part of an event."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", from_attributes=True, use_attribute_docstrings=True
    )


class Successor(Value):
    """A unit that took over from a closed one, wholly or in part."""

    code: str
    relation: Literal["whole", "part-default", "part"] = "whole"


class UnitChanged(Event):
    """The state of a unit (đơn vị): its code, name, place in the tree, life and succession."""

    topic: ClassVar[str] = "registry.units.v1"
    producer: ClassVar[str] = "registry"
    compacted: ClassVar[bool] = True

    code: str
    version: int
    name: str
    type: str
    """`city`, `department`, `ward`, `commune`, `special_zone`, or `district` of the old order."""
    status: UnitStatus
    gso_code: str | None = None
    aliases: tuple[str, ...] = ()
    valid_from: date | None = None
    valid_to: date | None = None
    successors: tuple[Successor, ...] = ()
    synthetic: bool = False

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.code

    @property
    def active(self) -> bool:
        """Whether the code is in use."""
        return self.status is UnitStatus.active


class CentreChanged(Event):
    """The state of a unit's one-stop centre (trung tâm phục vụ hành chính công)."""

    topic: ClassVar[str] = "registry.centres.v1"
    producer: ClassVar[str] = "registry"
    compacted: ClassVar[bool] = True

    unit: str
    version: int
    latitude: float | None = None
    longitude: float | None = None
    hours: OpeningHours
    counters_planned: int
    procedures: tuple[str, ...] | None = None
    """Codes offered; None means every commune-level procedure in force."""

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.unit


class Component(Value):
    """A paper that a procedure asks for (thành phần hồ sơ); codes repeat between procedures."""

    code: str
    name: str
    required: bool
    kind: str
    reusable_from: str | None = None


class ProcedureVersion(Value):
    """A procedure as it is in force from a day on."""

    valid_from: date
    name: str
    name_en: str | None = None
    field: str
    competent_level: Level
    department: str | None = None
    """Unit code of the department that is competent at province level."""
    territorial: bool
    boundary_independent: bool
    same_day: bool
    limit: Limit
    fee_vnd: int | None = None
    """None where no source names a fee: it does not mean free."""
    components: tuple[Component, ...] = ()
    confidence: str = "unconfirmed"


class ProcedureChanged(Event):
    """All versions of a procedure (thủ tục hành chính), oldest first."""

    topic: ClassVar[str] = "registry.procedures.v1"
    producer: ClassVar[str] = "registry"
    compacted: ClassVar[bool] = True

    code: str
    version: int
    versions: tuple[ProcedureVersion, ...]

    @property
    def key(self) -> str:
        """Order is kept per procedure."""
        return self.code

    def in_force(self, day: date) -> ProcedureVersion | None:
        """Give the version that a dossier received on a day is treated by."""
        return next((v for v in reversed(self.versions) if v.valid_from <= day), None)


class CalendarDayChanged(Event):
    """A day's exception from weekend and holiday rules; without `kind` it was taken back."""

    topic: ClassVar[str] = "registry.calendar.v1"
    producer: ClassVar[str] = "registry"
    compacted: ClassVar[bool] = True

    day: date
    version: int
    kind: Literal["off", "work"] | None
    decision: str = ""
    note: str = ""
    in_lieu_of: date | None = None

    @property
    def key(self) -> str:
        """Order is kept per day."""
        return self.day.isoformat()


class ClientKind(StrEnum):
    """What is registered to call with an API key; also the role it calls in."""

    kiosk = "kiosk"
    portal = "portal"


class ClientKey(Value):
    """A key that a client may show, known by its hash alone."""

    sha256: str
    not_after: datetime | None = None
    """By the wall clock; set when another key takes over."""


class ClientChanged(Event):
    """The state of a kiosk or of the portal as a caller; a revoked one has no key left."""

    topic: ClassVar[str] = "registry.clients.v1"
    producer: ClassVar[str] = "registry"
    compacted: ClassVar[bool] = True

    id: str
    version: int
    kind: ClientKind
    units: tuple[str, ...] = ()
    keys: tuple[ClientKey, ...] = ()

    @property
    def key(self) -> str:
        """Order is kept per client."""
        return self.id

"""Tables of the registry."""

from datetime import date, datetime
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, MetaData, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from libs.common.db import NAMING
from libs.common.outbox import mechanism


class Base(DeclarativeBase):
    """The registry's tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: DateTime(timezone=True)}


METADATA = [Base.metadata, mechanism]


class Unit(Base):
    """An agency with an identifier code (đơn vị, mã định danh)."""

    __tablename__ = "units"
    __table_args__ = (
        CheckConstraint("status IN ('planned', 'active', 'closed')", name="status"),
        # A closed code keeps its row for ever, so the primary key also forbids issuing it again.
        CheckConstraint("(status = 'closed') = (valid_to IS NOT NULL)", name="closed_has_end"),
        Index(
            "units_one_active_gso_code",
            "gso_code",
            unique=True,
            postgresql_where=text("status = 'active'"),
        ),
    )

    code: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    name: Mapped[str]
    search: Mapped[str]
    """The name without accents and tone marks."""
    type: Mapped[str] = mapped_column(index=True)
    level: Mapped[int]
    parent: Mapped[str | None] = mapped_column(index=True)
    status: Mapped[str]
    gso_code: Mapped[str | None] = mapped_column(index=True)
    valid_from: Mapped[date | None]
    valid_to: Mapped[date | None]
    decision: Mapped[str | None]
    former_province: Mapped[str | None]
    area_km2: Mapped[float | None]
    synthetic: Mapped[bool]

    aliases: Mapped[list["UnitAlias"]] = relationship(
        lazy="selectin", cascade="all, delete-orphan", order_by="UnitAlias.alias"
    )
    successors: Mapped[list["Succession"]] = relationship(
        lazy="selectin",
        cascade="all, delete-orphan",
        order_by="Succession.successor",
        foreign_keys="Succession.predecessor",
    )
    predecessors: Mapped[list["Succession"]] = relationship(
        lazy="selectin",
        viewonly=True,
        order_by="Succession.predecessor",
        foreign_keys="Succession.successor",
    )


class UnitAlias(Base):
    """Another code of a unit, of the older QCVN 102:2016 grammar: stated, never derived."""

    __tablename__ = "unit_aliases"

    alias: Mapped[str] = mapped_column(primary_key=True)
    unit: Mapped[str] = mapped_column(ForeignKey("units.code"), index=True)


class Succession(Base):
    """A closed unit's successor, wholly or in part."""

    __tablename__ = "successions"
    __table_args__ = (
        CheckConstraint("relation IN ('whole', 'part-default', 'part')", name="relation"),
        CheckConstraint("predecessor <> successor", name="not_itself"),
    )

    predecessor: Mapped[str] = mapped_column(ForeignKey("units.code"), primary_key=True)
    successor: Mapped[str] = mapped_column(ForeignKey("units.code"), primary_key=True, index=True)
    relation: Mapped[str]


class Centre(Base):
    """The one-stop centre of a unit."""

    __tablename__ = "centres"
    __table_args__ = (CheckConstraint("counters_planned BETWEEN 1 AND 99", name="counters"),)

    unit: Mapped[str] = mapped_column(ForeignKey("units.code"), primary_key=True)
    version: Mapped[int]
    address: Mapped[str | None]
    latitude: Mapped[float | None]
    longitude: Mapped[float | None]
    hotlines: Mapped[list[str]] = mapped_column(JSONB)
    hours: Mapped[dict[str, Any]] = mapped_column(JSONB)
    counters_planned: Mapped[int]
    name_board: Mapped[str]
    """`unknown`, `missing`, or `as regulated`."""
    procedures: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    """Codes offered; null means every commune-level procedure."""


class Procedure(Base):
    """An administrative procedure (thủ tục hành chính)."""

    __tablename__ = "procedures"

    code: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    versions: Mapped[list["ProcedureVersion"]] = relationship(
        lazy="selectin", cascade="all, delete-orphan", order_by="ProcedureVersion.valid_from"
    )


class ProcedureVersion(Base):
    """A procedure as it is in force from a day on; a dossier keeps the one of its reception."""

    __tablename__ = "procedure_versions"

    code: Mapped[str] = mapped_column(ForeignKey("procedures.code"), primary_key=True)
    valid_from: Mapped[date] = mapped_column(primary_key=True)
    name: Mapped[str]
    search: Mapped[str]
    field: Mapped[str] = mapped_column(index=True)
    competent_level: Mapped[str]
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The whole version in the shape of the contract."""


class CalendarOverride(Base):
    """A day that is worked or off against weekend and holiday rules."""

    __tablename__ = "calendar_overrides"
    __table_args__ = (CheckConstraint("kind IN ('off', 'work')", name="kind"),)

    day: Mapped[date] = mapped_column(primary_key=True)
    version: Mapped[int]
    kind: Mapped[str | None]
    """Null where an exception was taken back: its version must go on rising."""
    decision: Mapped[str]
    note: Mapped[str]
    in_lieu_of: Mapped[date | None]


class Client(Base):
    """A kiosk, or the national portal, that calls with an API key."""

    __tablename__ = "clients"
    __table_args__ = (
        CheckConstraint("kind IN ('kiosk', 'portal')", name="kind"),
        CheckConstraint("(kind = 'kiosk') = (units <> '[]'::jsonb)", name="kiosk_has_units"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    kind: Mapped[str]
    name: Mapped[str]
    units: Mapped[list[str]] = mapped_column(JSONB)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    keys: Mapped[list["ApiKey"]] = relationship(
        lazy="selectin", cascade="all, delete-orphan", order_by="ApiKey.created_at"
    )


class ApiKey(Base):
    """A client's key as its hash: what was shown once cannot be read from here."""

    __tablename__ = "api_keys"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    client: Mapped[str] = mapped_column(ForeignKey("clients.id"), index=True)
    created_at: Mapped[datetime]
    not_after: Mapped[datetime | None]
    """Set when another key takes over; by the wall clock, as all credentials are."""

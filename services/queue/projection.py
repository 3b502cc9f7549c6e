"""All boards in memory: from the log while it is level with the tables, else from the tables."""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final, Protocol

import structlog

from libs.common.app import Core
from libs.common.bus.base import BusError, Positions, Received
from libs.common.db import transient
from libs.contracts.queue import CounterChanged, QueueLoad, TicketEvent
from services.queue.board import Board, Desk, Step, Told, after, read_boards, read_desks
from services.queue.policy import oldest_now

log = structlog.get_logger()

OF_UNITS: Final = (TicketEvent.topic, CounterChanged.topic)
TOPICS: Final = (*OF_UNITS, QueueLoad.topic)

_LOOK = """
SELECT clock_timestamp() AS now, (
    SELECT created_at FROM outbox WHERE topic = ANY ($1::text[]) ORDER BY id LIMIT 1
) AS unsent
"""


class Listener(Protocol):
    """Whoever passes on what the projection learns."""

    def told(self, board: Board, change: Told) -> None:
        """Take a change of a unit's board."""
        ...

    def load_told(self, unit: str) -> None:
        """Take a unit's new load."""
        ...

    def renewed(self, units: Collection[str] | None) -> None:
        """Show these units (None: all) anew: not every change of them was told one by one."""
        ...


@dataclass(frozen=True, slots=True)
class LoadTold:
    """A unit's load, and where in the log it was told."""

    partition: int
    offset: int
    load: QueueLoad


class Projection:
    """Every unit's board as the log tells it, and whether that is as good as the tables now.

    The log is followed from a little before its end, so that a process just started can tell what
    a stream missed that broke with another. The tables give the state of that moment, and versions
    say which of the two is newer.

    Twice a second the projection asks how far the log is behind: what is the oldest event that has
    not left the outbox, and where does the log end. As soon as it has read up to that end, it has
    been told everything that was committed before that event. When this instant is too long ago,
    whatever the cause, boards are read from the tables once a second until the log is level again;
    so they go on while the bus is away.
    """

    back: Final = 2000
    """Records before the log's end, in each partition, that are read to be remembered."""
    look_seconds: Final = 0.5
    answer_seconds: Final = 1.0
    fetch_seconds: Final = 0.25
    """How long a quiet log may leave it open whether it has been read to its end."""
    late_seconds: Final = 2.5
    tables_seconds: Final = 1.0
    desks_seconds: Final = 5.0

    def __init__(self, core: Core) -> None:
        """Prepare; `follow` and `watch` do the work."""
        self._core = core
        self._boards: dict[str, Board] = {}
        self._tables: dict[str, Board] | None = {}
        self.loads: dict[str, LoadTold] = {}
        self.listener: Listener | None = None
        self._positions: dict[str, list[int]] = {}
        self._begun: dict[str, list[int]] = {}
        """Where following began: what stands before it is not remembered."""
        self._loaded: Positions = {}
        """Where the log ended when the tables were read."""
        self._loaded_at: datetime | None = None
        """When the tables were read, by the database's clock; None: they are to be read (again)."""
        self._marks: deque[tuple[datetime, Positions]] = deque(maxlen=1000)
        """Instants of which everything is told once the log has been read up to a place."""
        self._told_until: datetime | None = None
        self._sound_at = 0.0
        self._tables_at = 0.0
        self._desks_at = 0.0
        self.ready = asyncio.Event()
        """Set once there is something to show."""
        self.problem: str | None = "not level with the log yet"
        """Why boards are not fed by the log, for `readyz`."""

    @property
    def level(self) -> bool:
        """Whether boards are fed by the log, so that a place in it says what somebody has seen."""
        return self._tables is None

    @property
    def sound(self) -> bool:
        """Whether what is shown was found true within the last seconds."""
        return monotonic() - self._sound_at <= self.late_seconds

    @property
    def positions(self) -> Positions:
        """How far each topic has been read."""
        return self._positions

    def board(self, unit: str) -> Board:
        """Give a unit's board as it is to be shown."""
        boards = self._boards if self._tables is None else self._tables
        return boards.get(unit) or Board(unit)

    def missed(self, unit: str, place: Positions) -> list[Told] | None:
        """List a unit's changes beyond a place; None if they are not all remembered."""
        begun = {topic: self._begun[topic] for topic in place}
        if not self.level or not _reached(place, begun):
            return None
        board = self._boards.get(unit)
        return board.missed(place) if board else []

    def ahead(self, place: Positions) -> bool:
        """Tell whether a place is beyond what has been read here."""
        return not _reached(self._positions, place)

    def fits(self, place: Positions) -> bool:
        """Tell whether a place has the partitions that the log has."""
        return all(len(self._positions[topic]) == len(offsets) for topic, offsets in place.items())

    # The log ------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Follow the log until cancelled, after an outage from where it was left."""
        while True:
            try:
                if self._loaded_at is None:
                    await self._begin()
                async with self._core.bus.follow(TOPICS, self._positions) as follower:
                    while self._loaded_at is not None:
                        for record in await follower.fetch(1000, self.fetch_seconds):
                            self._take(record)
                        self._note_positions(follower.positions)
                        self._settle()
            except Exception as error:
                if not (transient(error) or isinstance(error, BusError)):
                    raise
                log.warning("boards.interrupted", error=f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(0.25)

    def _note_positions(self, positions: Positions) -> None:
        self._positions = self._positions | _copied(positions)
        for topic, places in self._begun.items():
            # A partition that has come since is read from its first record.
            places.extend([0] * (len(self._positions[topic]) - len(places)))

    async def _begin(self) -> None:
        """Note where the log ends, then read the tables: nothing falls between the two."""
        ends = await self._core.bus.ends(TOPICS)
        self._boards = await read_boards(self._core.db.hot, self._core.clock.now())
        loaded_at = await self._core.db.hot.fetchval("SELECT clock_timestamp()")
        self._loaded = ends
        self._positions = {topic: [0] for topic in TOPICS} | {
            topic: [0 if topic == QueueLoad.topic else max(0, end - self.back) for end in places]
            for topic, places in ends.items()
        }
        self._begun = _copied(self._positions)
        self._marks.clear()
        self._told_until = None
        self._loaded_at = loaded_at

    def _take(self, record: Received) -> None:
        places = self._positions[record.topic]
        places.extend([0] * (record.partition + 1 - len(places)))
        places[record.partition] = record.offset + 1
        try:
            self._apply(record)
        except ValueError as error:
            self._give_up(record, error)

    def _apply(self, record: Received) -> None:
        if record.value is None:
            return
        if record.topic == QueueLoad.topic:
            self._take_load(record, QueueLoad.model_validate_json(record.value))
            return
        place = (record.topic, record.partition, record.offset)
        board = self._boards.setdefault(_unit_of(record), Board(_unit_of(record)))
        change = None
        if record.topic == TicketEvent.topic:
            step = Step.model_validate_json(record.value)
            type_ = record.headers.get("ce_type", "")
            ticket = after(type_, step, board.tickets.get(step.ticket_id))
            change = board.ticket_changed(step.ticket_id, ticket, *place)
        else:
            changed = CounterChanged.model_validate_json(record.value)
            desk = Desk(changed.version, changed.state)
            change = board.desk_changed(changed.number, desk, *place)
        if change is not None and self.level and self.listener is not None:
            self.listener.told(board, change)

    def _take_load(self, record: Received, load: QueueLoad) -> None:
        known = self.loads.get(load.unit)
        if known is not None and known.load.version >= load.version:
            return
        self.loads[load.unit] = LoadTold(record.partition, record.offset, load)
        if self.level and self.listener is not None:
            self.listener.load_told(load.unit)

    def _give_up(self, record: Received, error: ValueError) -> None:
        """Leave a record that cannot be applied to the tables, which know what it meant."""
        if board := self._boards.get(_unit_of(record)):
            board.forget_told(record.topic, record.partition, record.offset)
        known = self._loaded.get(record.topic, ())
        if record.partition < len(known) and record.offset < known[record.partition]:
            return  # the tables were read after it
        log.warning(
            "boards.unreadable", topic=record.topic, offset=record.offset, error=str(error)[:500]
        )
        self._loaded_at = None
        if self._tables is None:
            # What is read again of the log is no news: nobody is told of it one by one.
            self._tables = self._boards

    # Level or not -------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look now and then whether the log is level with the tables, until cancelled."""
        while True:
            try:
                await self._look()
            except Exception as error:
                if not (transient(error) or isinstance(error, BusError)):
                    raise
                self.problem = f"{type(error).__name__}: {error}"[:200]
            await asyncio.sleep(0.1 if self._told_until is None else self.look_seconds)

    async def _look(self) -> None:
        row = await self._core.db.hot.fetchrow(_LOOK, TOPICS)
        try:
            async with asyncio.timeout(self.answer_seconds):
                ends = await self._core.bus.ends(TOPICS)
            self._marks.append((row["unsent"] or row["now"], ends))
        except Exception as error:
            if not (transient(error) or isinstance(error, BusError)):
                raise
            # What the marks say is old by now, and will soon be too old.
            log.warning("boards.bus_away", error=type(error).__name__)
        self._settle()
        if self._is_level(row["now"]):
            self._feed_from_log()
            await self._take_new_desks()
        else:
            await self._feed_from_tables()
        self._sound_at = monotonic()
        self.ready.set()

    def _settle(self) -> None:
        while self._marks and _reached(self._positions, self._marks[0][1]):
            self._told_until, _ = self._marks.popleft()

    def _is_level(self, now: datetime) -> bool:
        if self._loaded_at is None or self._told_until is None:
            return False
        if self._told_until < self._loaded_at:
            return False  # what ended before the tables were read may still be told as alive
        return now - self._told_until <= timedelta(seconds=self.late_seconds)

    def _feed_from_log(self) -> None:
        if self._tables is None:
            return
        self._tables, self.problem = None, None
        self._renew(None)

    async def _feed_from_tables(self) -> None:
        self.problem = "the log is behind: boards are read from the tables"
        if self._tables and monotonic() - self._tables_at < self.tables_seconds:
            return
        self._tables_at = monotonic()
        before = self._tables or self._boards
        self._tables = await read_boards(self._core.db.hot, self._core.clock.now())
        self._renew(_differing(before, self._tables))

    async def _take_new_desks(self) -> None:
        """Find counters that were made without a word; and let tickets of long ago go."""
        if monotonic() - self._desks_at < self.desks_seconds:
            return
        self._desks_at = monotonic()
        made = set()
        for unit, read in (await read_desks(self._core.db.hot)).items():
            if self._boards.setdefault(unit, Board(unit)).desks_made(read.desks):
                made.add(unit)
        over = oldest_now(self._core.clock.now()) - timedelta(days=1)
        for board in self._boards.values():
            board.forget_waiting(over)
        if made:
            self._renew(made)

    def _renew(self, units: Collection[str] | None) -> None:
        if self.listener is not None:
            self.listener.renewed(units)


def _differing(one: Mapping[str, Board], other: Mapping[str, Board]) -> set[str]:
    nothing = Board("")
    units = one.keys() | other.keys()
    return {u for u in units if not one.get(u, nothing).same(other.get(u, nothing))}


def _unit_of(record: Received) -> str:
    """Name the unit: a ticket's key is its unit, a counter's key is unit/number."""
    return record.key.partition("/")[0]


def _copied(positions: Positions) -> dict[str, list[int]]:
    return {topic: list(places) for topic, places in positions.items()}


def _reached(positions: Positions, place: Positions) -> bool:
    """Tell whether reading has come to a place in every topic and partition that it names."""
    return all(
        len(positions.get(topic, ())) == len(wanted) and _all_reached(positions[topic], wanted)
        for topic, wanted in place.items()
    )


def _all_reached(at: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(here >= there for here, there in zip(at, wanted, strict=True))

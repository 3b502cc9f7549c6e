"""Live streams of boards and of the city: who reads them, and what each is sent."""

import asyncio
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, Final

from prometheus_client import Gauge

from libs.common import fast_json
from libs.common.app import Core
from libs.common.bus.base import Positions
from libs.common.streams import Reader, written
from libs.contracts.directory import Directory
from libs.contracts.queue import QueueLoad
from services.queue.board import Board, Told
from services.queue.load import Load, Loads
from services.queue.projection import OF_UNITS, Projection

OPEN: Final = Gauge("motcua_queue_streams", "Live streams open now.", ("of",))
OF_CITY: Final = (QueueLoad.topic,)
NO_PLACE: Final = "tables"
"""The id of what was read from the tables: nobody can resume from it."""

_ID: Final = re.compile(r"\d{1,18}(\.\d{1,18})*(-\d{1,18}(\.\d{1,18})*)*")
_LONGEST_ID: Final = 2000
_TOO_LATE: Final = b": what was missed is not held any more, or not here; this is everything\n"


class Streams:
    """Everybody who follows a board or the city, in this process."""

    heartbeat_seconds: Final = 5
    retry_seconds: Final = (1.0, 3.0)
    """When a broken stream comes back: not all of them at the same moment."""

    def __init__(
        self, core: Core, projection: Projection, loads: Loads, directory: Directory
    ) -> None:
        """Listen to a projection."""
        self._core = core
        self._projection = projection
        self._loads = loads
        self._directory = directory
        self._of_units: defaultdict[str, set[Reader]] = defaultdict(set)
        self._of_city: set[Reader] = set()
        self._loads_told: set[str] = set()
        """Units whose load the readers of the city have not been told of."""
        self._waiting: dict[str, int] = {}
        """How many the readers of a unit were last told are waiting."""
        self._overview: bytes = b""
        """What the readers of the city were shown last, from the tables."""
        projection.listener = self
        OPEN.labels("units").set_function(lambda: sum(map(len, self._of_units.values())))
        OPEN.labels("city").set_function(lambda: len(self._of_city))

    @property
    def ready(self) -> bool:
        """Whether there is something to show."""
        return self._projection.ready.is_set()

    # Opening ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def unit(self, unit: str, last_id: str | None) -> AsyncIterator[Reader]:
        """Open a stream of a unit's board: what was missed since an id, else the whole board."""
        place = await self._resumable(last_id, OF_UNITS)
        reader = Reader(lambda: self._whole_board(unit))
        changes = None if place is None else self._projection.missed(unit, place)
        if place is None or changes is None:
            reader.offer(self._first(last_id) + self._whole_board(unit))
        else:
            missed = b"".join(self._replayed(unit, place, changes))
            reader.offer(self._first(None) + missed + self._beat_of(unit))
        readers = self._of_units[unit]
        try:
            with self._kept(reader, readers):
                yield reader
        finally:
            if not readers:
                del self._of_units[unit], self._waiting[unit]

    @asynccontextmanager
    async def city(self, last_id: str | None) -> AsyncIterator[Reader]:
        """Open a stream of the city: the loads told since an id, else all of them."""
        place = await self._resumable(last_id, OF_CITY)
        self._tell_city()  # or what the others are still to be told would come here twice
        reader = Reader(self._whole_city)
        if place is None or not self._projection.level:
            reader.offer(self._first(last_id) + self._whole_city())
        else:
            units = [
                unit
                for unit, told in self._projection.loads.items()
                if told.offset >= place[QueueLoad.topic][told.partition]
            ]
            missed = self._loads_change(units) if units else b""
            reader.offer(self._first(None) + missed + self._beat_of_city())
        with self._kept(reader, self._of_city):
            yield reader

    @contextmanager
    def _kept(self, reader: Reader, readers: set[Reader]) -> Iterator[None]:
        readers.add(reader)
        if self._core.stopping.is_set():
            reader.end()
        try:
            yield
        finally:
            readers.discard(reader)

    async def _resumable(self, last_id: str | None, topics: Sequence[str]) -> Positions | None:
        """Read an id; a process that is a moment behind the one that gave it waits until it is not.

        An id from beyond the end of the log (restored, or another one) is none.
        """
        place = _place(last_id, topics)
        for _ in range(50):
            if place is None or not self._projection.level or not self._projection.fits(place):
                return None
            if not self._projection.ahead(place):
                return place
            await asyncio.sleep(0.02)
        return None

    def _first(self, last_id: str | None) -> bytes:
        retry = random.uniform(*self.retry_seconds)  # noqa: S311  (spreads clients, no secret)
        return b"retry: %d\n\n" % (retry * 1000) + (_TOO_LATE if last_id else b"")

    # Writing ------------------------------------------------------------------------------------

    def _id(self, topics: Sequence[str]) -> str:
        if not self._projection.level:
            return NO_PLACE
        return _written_place(self._projection.positions, topics)

    def _whole_board(self, unit: str) -> bytes:
        board = self._projection.board(unit)
        whole = board.snapshot(self._core.clock.now(), self._loads.forecast(unit))
        self._waiting[unit] = whole["waiting"]
        return written("snapshot", whole, self._id(OF_UNITS))

    def _change(self, board: Board, told: Told, place: str) -> bytes:
        change = board.change(told, self._core.clock.now(), self._loads.forecast(board.unit))
        self._waiting[board.unit] = change["waiting"]
        return written("change", change, place)

    def _replayed(self, unit: str, place: Positions, changes: Sequence[Told]) -> Iterator[bytes]:
        """Write what was missed, each change with the place it leads to, the last up to now."""
        board = self._projection.board(unit)
        reached = {topic: list(place[topic]) for topic in OF_UNITS}
        for told in changes[:-1]:
            reached[told.topic][told.partition] = told.offset + 1
            yield self._change(board, told, _written_place(reached, OF_UNITS))
        for told in changes[-1:]:
            # Another process may not have known which counter a ticket had been at before.
            everything = replace(told, counters=frozenset(board.desks))
            yield self._change(board, everything, self._id(OF_UNITS))

    def _beat_of(self, unit: str) -> bytes:
        figures = self._figures_of(unit)
        self._waiting[unit] = figures["waiting"]
        return written("heartbeat", figures)

    def _figures_of(self, unit: str) -> dict[str, Any]:
        board = self._projection.board(unit)
        return board.figures(self._core.clock.now(), self._loads.forecast(unit))

    def overview(self, loads: Mapping[str, Load | QueueLoad]) -> dict[str, Any]:
        """Write loads of units down, the longest wait first."""
        items = [self._shown(unit, load) for unit, load in loads.items()]
        items.sort(key=lambda item: (-item["oldest_wait_seconds"], item["unit"]))
        return self._figures_of_city(loads) | {"items": items}

    def _loads_now(self) -> Mapping[str, Load | QueueLoad]:
        if not self._projection.level:
            return self._loads.all()
        return {
            unit: told.load
            for unit, told in self._projection.loads.items()
            if told.load.waiting or told.load.open_counters
        }

    def _figures_of_city(self, loads: Mapping[str, Load | QueueLoad]) -> dict[str, Any]:
        waiting = sum(load.waiting for load in loads.values())
        return {"as_of": fast_json.instant(self._core.clock.now()), "waiting": waiting}

    def _shown(self, unit: str, load: Load | QueueLoad) -> dict[str, Any]:
        known = self._directory.units.get(unit)
        return {
            "unit": unit,
            "name": known.name if known else unit,
            "waiting": load.waiting,
            "oldest_wait_seconds": load.oldest_wait_seconds,
            "forecast_wait_seconds": load.forecast_wait_seconds,
            "open_counters": load.open_counters,
        }

    def _whole_city(self) -> bytes:
        return written("snapshot", self.overview(self._loads_now()), self._id(OF_CITY))

    def _loads_change(self, units: Collection[str]) -> bytes:
        loads = self._projection.loads
        items = [self._shown(unit, loads[unit].load) for unit in sorted(units)]
        figures = self._figures_of_city(self._loads_now())
        return written("change", figures | {"items": items}, self._id(OF_CITY))

    def _beat_of_city(self) -> bytes:
        return written("heartbeat", self._figures_of_city(self._loads_now()))

    # Passing on ---------------------------------------------------------------------------------

    def told(self, board: Board, change: Told) -> None:
        """Send a change to the unit's readers: written once, offered to each."""
        if readers := self._of_units.get(board.unit):
            _offer(readers, self._change(board, change, self._id(OF_UNITS)))

    def load_told(self, unit: str) -> None:
        """Note a load; the city's readers are told once a second."""
        self._loads_told.add(unit)

    def renewed(self, units: Collection[str] | None) -> None:
        """Send whole boards: their changes were not told one by one."""
        for unit in list(self._of_units):
            if units is None or unit in units:
                _offer(self._of_units[unit], self._whole_board(unit))
        if units is None and self._of_city:
            self._loads_told.clear()
            _offer(self._of_city, self._whole_city())

    async def run(self) -> None:
        """Tell the city's readers of loads, and everybody that the stream is alive."""
        second = 0
        while True:
            await asyncio.sleep(1)
            self._tell_city()
            # A stream that is not known to be true falls silent, and its screens say so.
            if self._projection.sound:
                self._beat(second % self.heartbeat_seconds)
            second += 1

    def _tell_city(self) -> None:
        told, self._loads_told = self._loads_told, set()
        if not self._of_city:
            return
        if self._projection.level:
            if told:
                _offer(self._of_city, self._loads_change(told))
            return
        shown = fast_json.dumps(self.overview(self._loads_now())["items"])
        if shown != self._overview:
            self._overview = shown
            _offer(self._of_city, self._whole_city())

    def _beat(self, turn: int) -> None:
        """Send the heartbeats of one turn: a fifth of the units each second."""
        for unit, readers in self._of_units.items():
            if hash(unit) % self.heartbeat_seconds != turn:
                continue
            if self._figures_of(unit)["waiting"] == self._waiting[unit]:
                _offer(readers, self._beat_of(unit))
            else:  # a day is over, and with it the tickets that nobody called
                _offer(readers, self._whole_board(unit))
        if turn == 0 and self._of_city:
            _offer(self._of_city, self._beat_of_city())

    async def end_when_stopping(self) -> None:
        """End every stream once the process is told to stop: its reader resumes elsewhere."""
        await self._core.stopping.wait()
        for readers in (*self._of_units.values(), self._of_city):
            for reader in readers:
                reader.end()
        await asyncio.Event().wait()  # a task that ends counts as dead


def _offer(readers: Collection[Reader], piece: bytes) -> None:
    for reader in readers:
        reader.offer(piece)


def _written_place(positions: Positions, topics: Sequence[str]) -> str:
    """Write how far topics were read: offsets per partition, so that any process can resume."""
    return "-".join(".".join(map(str, positions[topic])) for topic in topics)


def _place(text: str | None, topics: Sequence[str]) -> Positions | None:
    if text is None or len(text) > _LONGEST_ID or not _ID.fullmatch(text):
        return None
    parts = text.split("-")
    if len(parts) != len(topics):
        return None
    return {
        topic: [int(offset) for offset in part.split(".")]
        for topic, part in zip(topics, parts, strict=True)
    }

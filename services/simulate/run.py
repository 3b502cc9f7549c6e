"""A play from beginning to end: set up, play, close the books, compare."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import aiohttp
import uvloop

from services.simulate.client import Door, Unsettled, opened
from services.simulate.compare import Line, alone, compare, differences
from services.simulate.demand import draws
from services.simulate.ledger import Ledger
from services.simulate.play import Play
from services.simulate.scene import Scene, set_up
from services.simulate.settings import Cost, Outcome, Settings

_LOOK_AROUND_SECONDS = 5.0
_PROMISE_SECONDS = 1200
"""Used only where there is no report to say what the promise is."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How far a play has come."""

    since: datetime
    until: datetime
    now: datetime
    expected: int
    """Tickets that are to be drawn in all."""
    tickets: int
    calls: int
    calls_a_second: float
    retries: int


Watch = Callable[[Pulse], None]


def run(settings: Settings, watch: Watch | None = None) -> Outcome:
    """Play and compare; Ctrl-C ends the play early, with what there is.

    Raises:
        Refused: the play cannot begin; the message says what to do.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(simulate(settings, watch))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None  # a second Ctrl-C


async def simulate(
    settings: Settings, watch: Watch | None = None, stop: asyncio.Event | None = None
) -> Outcome:
    """Do what `run` does, in a running loop; setting `stop` is the same as Ctrl-C."""
    stop = stop or asyncio.Event()
    ledger = Ledger()
    async with opened() as session:
        door = _door(session, settings, ledger)
        # Looking around is not worth a minute's patience: nobody there is a refusal.
        door.hurry(_LOOK_AROUND_SECONDS)
        scene = await set_up(door, settings)
        door.take_time()
        play = Play(scene, door, ledger, draws(settings.seed, "officers"))
        cost = Cost(speed=scene.clock.speed)
        with _interrupted_by(stop):
            await _perform(play, settings, cost, stop, watch)
        door.take_time()
        ledger.check()
        lines = await _settle(door, ledger, scene, settings, cost)
        return Outcome(scene.week, scene.units, ledger, lines, stop.is_set(), cost)


def _door(session: aiohttp.ClientSession, settings: Settings, ledger: Ledger) -> Door:
    return Door(
        session, settings.url.split(","), ledger, connections=settings.connections,
        patience=settings.patience, repeats=settings.repeats,
        chance=draws(settings.seed, "network"),
    )  # fmt: skip


async def _perform(
    play: Play, settings: Settings, cost: Cost, stop: asyncio.Event, watch: Watch | None
) -> None:
    began, cpu, virtual = time.monotonic(), time.process_time(), play.scene.clock.now()
    helpers = [
        asyncio.create_task(_on(stop, play.stop)),
        asyncio.create_task(_watch(play, cost, watch)),
    ]
    try:
        await play.run(timedelta(minutes=settings.overrun_minutes))
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
    cost.wall_seconds = time.monotonic() - began
    cost.own_cpu_seconds = time.process_time() - cpu
    cost.virtual_seconds = (play.scene.clock.now() - virtual).total_seconds()
    _reckon(play, cost)


def _reckon(play: Play, cost: Cost) -> None:
    traffic = play.door.traffic
    cost.calls, cost.retries, cost.repeats = traffic.calls, traffic.retries, traffic.repeats
    cost.failures = traffic.failures
    times = sorted(traffic.times) or [0.0]
    cost.call_p50, cost.call_p95 = times[len(times) // 2], times[len(times) * 95 // 100]
    cost.call_max = times[-1]
    late = sorted(play.lateness) or [0.0]
    cost.late_p95 = late[len(late) * 95 // 100]


async def _on(stop: asyncio.Event, act: Callable[[], None]) -> None:
    await stop.wait()
    act()


async def _watch(play: Play, cost: Cost, watch: Watch | None) -> None:
    """Tell how far the play has come, and keep the busiest five seconds."""
    scene = play.scene
    expected = sum(len(hall.people) for hall in scene.halls)
    past = [(time.monotonic(), 0)]
    while True:
        await asyncio.sleep(0.5)
        calls, now = play.door.traffic.calls, time.monotonic()
        past = [*past[-9:], (now, calls)]
        rate = (calls - past[0][1]) / (now - past[0][0])
        cost.busiest_calls_a_second = max(cost.busiest_calls_a_second, rate)
        if watch is not None:
            tickets, retries = len(play.ledger.tickets), play.door.traffic.retries
            watch(
                Pulse(
                    scene.since, scene.until, scene.clock.now(), expected, tickets, calls, rate,
                    retries,
                )
            )  # fmt: skip


async def _settle(
    door: Door, ledger: Ledger, scene: Scene, settings: Settings, cost: Cost
) -> list[Line]:
    """Ask for the report until it agrees with the ledger or has had its time."""
    began = time.monotonic()
    path, who = f"/v1/reports/weekly/{scene.week.name}", scene.badges.of("city")
    while True:
        try:
            answer = await door.get(path, who)
        except Unsettled:
            return alone(ledger, scene.week, scene.clock.now(), _PROMISE_SECONDS)
        if not answer.ok:
            told = f"GET {path} was answered {answer.status}: {answer.body[:300]!r}"
            ledger.violations.append(told)
            return alone(ledger, scene.week, scene.clock.now(), _PROMISE_SECONDS)
        lines = compare(ledger, scene.week, answer.json)
        cost.settled_after = time.monotonic() - began
        if not differences(lines) or cost.settled_after > settings.settle:
            return lines
        await asyncio.sleep(0.25)


@contextmanager
def _interrupted_by(stop: asyncio.Event) -> Iterator[None]:
    """Turn the first Ctrl-C (and SIGTERM) into the stop; a second one is not waited for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]
    for number in signals:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

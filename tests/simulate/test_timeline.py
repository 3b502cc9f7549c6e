"""The server's clock followed from here."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from libs.common.clock import VirtualClock
from services.simulate.timeline import Timeline, follow, ring

START = datetime(2026, 11, 16, 0, 25, tzinfo=UTC)


@pytest.mark.parametrize("apart", [0, 3_600, -7])
def test_a_clock_is_followed_whatever_the_other_machines_wall_shows(apart: float) -> None:
    with time_machine.travel(1_800_000_000 + apart, tick=False):
        told = VirtualClock(START, 60, 1_800_000_000 + apart - 90).describe()
    with time_machine.travel(1_800_000_000, tick=False):
        assert follow(told).now() == START + timedelta(minutes=90)


async def test_sleepers_wake_at_their_instant_by_their_bell_and_at_the_stop() -> None:
    timeline = Timeline(VirtualClock(START, 1000, time.time()))
    await timeline.until(START - timedelta(days=1))
    await timeline.until(START + timedelta(seconds=5))
    assert timeline.clock.now() >= START + timedelta(seconds=5)
    far = START + timedelta(days=365)
    bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sleeping = [
        asyncio.create_task(timeline.until(far, bell)),
        asyncio.create_task(timeline.until(far)),
    ]
    await asyncio.sleep(0)
    ring(bell)
    ring(bell)
    await asyncio.wait_for(sleeping[0], 1)
    assert not sleeping[1].done()
    timeline.stop()
    await asyncio.wait_for(sleeping[1], 1)
    await asyncio.wait_for(timeline.until(far), 1)

"""How often somebody may call, and what happens while the shared count is away."""

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pydantic import SecretStr, ValidationError

from libs.common.problems import TooManyRequests
from libs.common.settings import Settings
from services.gateway.door import _reads
from services.gateway.rates import Counters, Rates, counting
from services.gateway.refusals import REASONS, REFUSED
from tests.gateway.faulty import faulty
from tests.gateway.front import Front, front
from tests.gateway.stub import Stub
from tests.serving import HOST, serving
from tests.support import PRODUCTION, bearer

# An hour is long enough to be no matter of when a test runs.
LIMITS = {"rate_anonymous_reads": "5/hour", "rate_anonymous_writes": "2/hour"}
X = "X-Forwarded-For"


@pytest.fixture(scope="module")
async def stub_port() -> AsyncIterator[int]:
    """Serve a service that answers everything."""
    async with serving(Stub()) as port:
        yield port


@pytest.fixture
async def door(stub_port: int) -> AsyncIterator[Front]:
    """Give a gateway that has little patience with its callers."""
    ports = {"queue": stub_port, "registry": stub_port}
    async with front(ports, **LIMITS, rate_wrong_credentials="3/hour") as opened:
        yield opened


async def get(door: Front, address: str, path: str = "/v1/tickets/x", **more: str) -> Any:
    """Call from an address."""
    return await door.client.get(path, headers={X: address} | more)


async def test_an_address_may_read_so_often_and_is_then_told_when_to_come_again(
    door: Front,
) -> None:
    statuses = [(await get(door, "198.51.100.1")).status_code for _ in range(5)]
    assert statuses == [200] * 5
    refused = await get(door, "198.51.100.1")
    assert refused.status_code == 429
    problem = refused.json()
    assert problem["type"] == "urn:motcua:problem:too-many-requests"
    assert problem["limit"] == "anonymous-reads"
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= 7200
    assert f"5 in 3600 s for each address; come again in {wait} s" in problem["detail"]
    assert refused.headers["ratelimit-policy"] == '"anonymous-reads";q=5;w=3600'
    assert refused.headers["ratelimit"] == f'"anonymous-reads";r=0;t={wait}'
    assert (await get(door, "198.51.100.2")).status_code == 200


async def test_writing_is_counted_apart_and_asking_the_way_is_reading(door: Front) -> None:
    post = door.client.post
    who = {X: "198.51.100.1"}
    assert [(await post("/v1/tickets", headers=who)).status_code for _ in range(2)] == [200] * 2
    refused = await post("/v1/tickets", headers=who)
    assert (refused.status_code, refused.json()["limit"]) == (429, "anonymous-writes")
    assert (await get(door, "198.51.100.1")).status_code == 200
    assert _reads({"method": "POST", "path": "/v1/route"})


async def test_two_hosts_of_a_household_share_what_it_may(door: Front) -> None:
    for host in range(5):
        assert (await get(door, f"2001:db8:1:2::{host}")).status_code == 200
    assert (await get(door, "2001:db8:1:2:ffff::1")).status_code == 429
    assert (await get(door, "2001:db8:1:3::1")).status_code == 200


async def test_health_and_pages_are_not_counted(door: Front) -> None:
    for _ in range(8):
        for path in ("/readyz", "/metrics", "/livez", "/overview"):
            assert (await get(door, "198.51.100.1", path)).status_code == 200
    assert (await get(door, "198.51.100.1")).status_code == 200


async def test_who_has_a_name_is_not_counted_by_address(door: Front) -> None:
    for _ in range(8):
        answered = await get(door, "198.51.100.1", **bearer("officer", "H29.26740"))
        assert answered.status_code == 200


async def test_who_has_a_name_is_counted_by_it_where_that_is_set(stub_port: int) -> None:
    async with front({"queue": stub_port}, rate_named="2/hour") as door:
        ann, ben = bearer("officer", subject="ann"), bearer("officer", subject="ben")
        statuses = [(await get(door, f"198.51.100.{n}", **ann)).status_code for n in range(3)]
        assert statuses == [200, 200, 429]
        assert (await get(door, "198.51.100.1", **ben)).status_code == 200


def test_names_are_counted_in_production_alone() -> None:
    assert Settings().named_rate == "none"
    assert Settings.model_validate(PRODUCTION).named_rate == "6000/minute"


async def test_wrong_credentials_cost_their_address_and_keep_out_nobody_who_was_here(
    door: Front,
) -> None:
    known, new = bearer("officer", subject="ann"), bearer("officer", subject="ben")
    assert (await get(door, "198.51.100.1", **known)).status_code == 200
    wrong = [{"Authorization": f"Bearer a.b.{n}"} for n in range(3)]
    wrong[1] = {"X-API-Key": "motcua_guessed"}
    for credentials in wrong:
        assert (await get(door, "198.51.100.1", **credentials)).status_code == 401
    for credentials in (*wrong, new):
        refused = await get(door, "198.51.100.1", **credentials)
        assert (refused.status_code, refused.json()["limit"]) == (429, "wrong-credentials")
    assert (await get(door, "198.51.100.1", **known)).status_code == 200
    assert (await get(door, "198.51.100.2", **new)).status_code == 200


@pytest.mark.parametrize("wrong", ["", "5", "0/minute", "5/fortnight", "-1/second", "5 / minute"])
def test_a_rate_that_is_none_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(ValidationError, match="rate_anonymous_reads"):
        Settings.model_validate({"rate_anonymous_reads": wrong})


async def test_every_reason_is_counted_from_the_start(door: Front) -> None:
    told = (await door.client.get("/metrics")).text
    for reason in REASONS:
        assert f'motcua_gateway_refused_total{{reason="{reason}"}}' in told
    before = REFUSED.labels("anonymous-writes")._value.get()
    for _ in range(4):
        await door.client.post("/v1/tickets", headers={X: "198.51.100.77"})
    assert REFUSED.labels("anonymous-writes")._value.get() == before + 2


async def test_calls_at_once_spend_no_more_than_there_is() -> None:
    rates = Rates(Settings(rate_anonymous_reads="100/hour"))

    async def one() -> bool:
        try:
            await rates.spend("anonymous-reads", "x")
        except TooManyRequests:
            return False
        return True

    assert sum(await asyncio.gather(*(one() for _ in range(300)))) == 100


async def test_windows_that_are_over_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    counters = Counters()
    for caller in range(1000):
        await counters.acquire_sliding_window_entry(f"c{caller}", 5, 60)
    now += 150
    for caller in range(500):
        await counters.acquire_sliding_window_entry(f"d{caller}", 5, 60)
    assert len(counters._windows) == 500
    monkeypatch.setattr(counters, "most", 500)
    for caller in range(100):
        await counters.acquire_sliding_window_entry(f"e{caller}", 5, 60)
    assert len(counters._windows) <= 500


async def test_a_window_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 60.0 * 30_000_000
    monkeypatch.setattr(time, "time", lambda: now)
    counters = Counters()

    async def granted(calls: int) -> int:
        hits = [await counters.acquire_sliding_window_entry("c", 10, 60) for _ in range(calls)]
        return sum(hits)

    assert await granted(12) == 10
    now += 75  # a quarter into the next window: three quarters of the last one still count
    assert await granted(12) == 3
    now += 120
    assert await granted(12) == 10


# Redis ----------------------------------------------------------------------------------------


class RealRedis:
    """A server that can be killed and started again on its port."""

    def __init__(self, program: str, folder: Path) -> None:
        """Choose a port."""
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self._command = [program, "--port", str(self.port), "--bind", HOST, "--save", ""]
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it listens."""
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=self._folder, stdout=log
            )
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection(HOST, self.port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    return

    async def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RealRedis]:
    """Give a real Redis."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on this machine")
    server = RealRedis(program, tmp_path)
    try:
        await server.start()
        yield server
    finally:
        await server.kill()


def shared(port: int) -> Settings:
    """Make the settings of a door that counts in Redis."""
    store = SecretStr(f"redis://{HOST}:{port}")
    return Settings(rate_store=store, rate_anonymous_writes="10/hour")


async def granted(rates: Rates, calls: int) -> int:
    """Count how many of so many calls are granted."""
    found = 0
    for _ in range(calls):
        with suppress(TooManyRequests):
            await rates.spend("anonymous-writes", "x")
            found += 1
    return found


async def test_two_doors_count_together_and_each_alone_while_redis_is_away(
    redis: RealRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.rates._ASKED_AGAIN_SECONDS", 0)
    settings = shared(redis.port)
    async with counting(settings) as one, counting(settings) as other:
        assert await granted(one, 6) + await granted(other, 6) == 10
        assert (one.problem, other.problem) == (None, None)
        await redis.kill()
        assert await granted(one, 3) == 3
        assert one.problem is not None
        await redis.start()
        assert await granted(one, 6) + await granted(other, 6) == 10
        assert one.problem is None


@pytest.mark.parametrize("mode", ["down", "silent"])
async def test_a_redis_that_does_not_answer_takes_nobody_down(
    mode: str, stub_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Mock()
    monkeypatch.setattr("services.gateway.rates.log", log)
    async with (
        faulty(mode) as redis,
        front({"queue": stub_port}, rate_store=f"redis://{HOST}:{redis.port}", **LIMITS) as door,
    ):
        statuses = [(await get(door, "198.51.100.1")).status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        ready = await door.client.get("/readyz")
        assert ready.status_code == 200
        assert "counts calls alone" in ready.json()["degraded"]["rates"]
    log.warning.assert_called_once()

"""A service that goes wrong: the others answer, the problem names it, nothing waits without end."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.circuit import CIRCUIT_OPEN, RETRIES, Circuit, RetryBudget
from services.gateway.refusals import CircuitOpen
from tests.gateway.faulty import faulty
from tests.gateway.front import NOBODY, front
from tests.gateway.stub import Stub
from tests.serving import HOST, serving, written
from tests.support import wait_until

HASTY: dict[str, Any] = {
    "upstream_connect_seconds": 0.3, "upstream_answer_seconds": 0.2,
    "upstream_silence_seconds": 0.2, "upstream_total_seconds": 0.4,
}  # fmt: skip


@pytest.fixture(scope="module")
async def stub() -> AsyncIterator[tuple[Stub, int]]:
    """Serve a service that works."""
    working = Stub()
    async with serving(working) as port:
        yield working, port


@pytest.mark.parametrize("mode", ["down", "silent", "dribbling", "resetting"])
async def test_one_service_goes_wrong_and_the_others_answer_as_before(
    stub: tuple[Stub, int], mode: str
) -> None:
    working = dict.fromkeys(("registry", "intake", "reporting"), stub[1])
    async with faulty(mode) as bad, front(working | {"queue": bad.port}, **HASTY) as door:
        calls = [asyncio.create_task(door.client.get(f"/v1/tickets/{n}")) for n in range(12)]
        for _ in range(10):
            for path in ("/v1/units", "/v1/dossiers/x", "/v1/reports/weekly/x"):
                assert (await door.client.get(path)).status_code == 200
        for call in calls:
            if mode == "dribbling":  # half an answer is out by then
                with pytest.raises(httpx.RemoteProtocolError):
                    await call
                continue
            away = await call
            assert away.status_code == 503
            assert int(away.headers["retry-after"]) >= 1
            assert away.json()["service"] == "queue"
            assert away.json()["trace_id"] == away.headers["x-trace-id"]
        ready = await door.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["degraded"].keys() == {"queue"}


@pytest.mark.parametrize("mode", ["silent", "resetting", "down"])
async def test_who_fails_again_and_again_is_left_alone_and_then_tried(
    stub: tuple[Stub, int], mode: str
) -> None:
    hasty = HASTY | {"retry_share": 0, "circuit_failures": 3, "circuit_seconds": 0.3}
    async with faulty(mode) as bad, front({"queue": bad.port}, **hasty) as door:
        for _ in range(3):
            away = (await door.client.get("/v1/tickets/x")).json()
            assert away["type"] == "urn:motcua:problem:upstream-away"
        heard = len(bad.calls)
        refused = await door.client.get("/v1/tickets/x")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["type"] == "urn:motcua:problem:circuit-open"
        assert refused.json()["service"] == "queue"
        assert len(bad.calls) == heard
        assert CIRCUIT_OPEN.labels("queue")._value.get() == 1
        degraded = (await door.client.get("/readyz")).json()["degraded"]
        assert degraded["queue"].startswith("left alone after 3 calls without an answer")
        if mode == "down":
            return
        bad.mode = "fine"

        async def answers() -> bool:
            return (await door.client.get("/v1/tickets/x")).status_code == 200

        async with asyncio.timeout(5):
            while not await answers():
                await asyncio.sleep(0.02)
        assert CIRCUIT_OPEN.labels("queue")._value.get() == 0
        assert "queue" not in (await door.client.get("/readyz")).json()["degraded"]


class Watch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def circuit_on(watch: Watch) -> Circuit:
    """Make a circuit that opens at the second failure, for ten seconds."""
    return Circuit("queue", failures=2, seconds=10, now=watch)


def fail(circuit: Circuit, times: int) -> None:
    """Let calls fail."""
    for _ in range(times):
        with circuit.attempt() as attempt:
            attempt.failed("TimeoutError")


def is_open(circuit: Circuit) -> bool:
    """Tell whether a call is refused."""
    try:
        with circuit.attempt():
            return False
    except CircuitOpen:
        return True


def test_only_failures_in_a_row_open_a_circuit() -> None:
    circuit = circuit_on(Watch())
    for _ in range(3):
        fail(circuit, 1)
        with circuit.attempt() as attempt:
            attempt.answered(500)  # a defect of one route is an answer
    assert circuit.problem is None
    fail(circuit, 2)
    assert is_open(circuit)


@pytest.mark.parametrize(
    ("status", "opens"), [(502, True), (504, True), (500, False), (503, False)]
)
def test_a_proxy_that_says_nobody_answers_counts_as_no_answer(status: int, opens: bool) -> None:
    circuit = circuit_on(Watch())
    for _ in range(2):
        with circuit.attempt() as attempt:
            attempt.answered(status)
    assert is_open(circuit) is opens


def test_one_call_at_a_time_tries_a_service_that_failed() -> None:
    watch = Watch()
    circuit = circuit_on(watch)
    fail(circuit, 2)
    watch.now += 9.9
    assert is_open(circuit)
    watch.now += 0.1
    with circuit.attempt() as trial:
        assert is_open(circuit)
        trial.failed("TimeoutError")
    watch.now += 9.9
    assert is_open(circuit)
    watch.now += 0.1
    with circuit.attempt():
        pass  # its caller left: nothing is known, the next one may try
    with circuit.attempt() as trial:
        trial.answered(200)
    assert not is_open(circuit)
    fail(circuit, 1)
    assert not is_open(circuit)


def test_what_was_under_way_when_a_circuit_opened_does_not_keep_it_open() -> None:
    watch = Watch()
    circuit = circuit_on(watch)
    with circuit.attempt() as early:
        fail(circuit, 2)
        watch.now += 10
        early.failed("TimeoutError")
    assert not is_open(circuit)


async def test_a_service_that_takes_no_more_of_an_upload_is_given_up(
    stub: tuple[Stub, int],
) -> None:
    working, port = stub
    working.begin()

    async def file() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(1_048_576)

    async with front({"intake": port}, **HASTY) as door:
        away = await door.client.post("/v1/files?act=stuck", content=file())
    working.go_on.set()
    assert (away.status_code, away.json()["service"]) == (503, "intake")
    await asyncio.wait_for(working.left.wait(), 5)


# Repeats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "method", "sent"),
    [
        ("resetting", "GET", 2), ("resetting", "HEAD", 2), ("resetting", "POST", 1),
        ("resetting", "PUT", 1), ("resetting", "DELETE", 1),
        ("silent", "POST", 1), ("dribbling", "GET", 1),
    ],
)  # fmt: skip
async def test_only_what_changes_nothing_is_sent_again_to_who_may_have_heard_it(
    mode: str, method: str, sent: int
) -> None:
    hasty = HASTY | {"circuit_failures": 9}
    async with faulty(mode) as bad, front({"queue": bad.port}, **hasty) as door:
        with contextlib.suppress(httpx.RemoteProtocolError):
            answered = await door.client.request(method, "/v1/tickets/x")
            assert answered.status_code == 503
        assert len(bad.calls) == sent


async def test_what_nobody_can_have_heard_is_sent_again_whatever_it_is() -> None:
    async with front({"queue": NOBODY}) as door:
        before = RETRIES.labels("queue")._value.get()
        assert (await door.client.post("/v1/tickets", json={})).status_code == 503
        assert RETRIES.labels("queue")._value.get() == before + 1


async def test_repeats_are_a_share_of_the_calls() -> None:
    budget = RetryBudget(0.1)
    assert sum(budget.spend() for _ in range(50)) == 10
    for _ in range(50):
        budget.earn()
    assert sum(budget.spend() for _ in range(50)) in (4, 5)  # tenths do not add up to a whole
    assert not RetryBudget(0).spend()
    async with faulty("resetting") as bad, front({"queue": bad.port}, retry_share=0) as door:
        await door.client.get("/v1/tickets/x")
        assert len(bad.calls) == 1


# Who leaves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_caller_that_leaves_a_silent_service_ends_the_call_and_frees_its_place(
    stub: tuple[Stub, int], method: str
) -> None:
    working, port = stub
    working.begin()
    async with front({"queue": port}, retry_share=1) as door:
        _, writer = await asyncio.open_connection(HOST, door.port)
        body = b"{}" if method == "POST" else b""
        writer.write(written(method, "/v1/tickets/silent", body=body))
        await wait_until(lambda: len(working.requests) == 1)
        writer.close()
        await asyncio.wait_for(working.left.wait(), 5)
        await wait_until(lambda: door.state["gates"]._open.total() == 0)
        assert len(working.requests) == 1  # nobody sends again for who is not there


# Memory ---------------------------------------------------------------------------------------

MEGABYTE = 1_048_576


@pytest.fixture(scope="module")
async def apart(stub: tuple[Stub, int]) -> AsyncIterator[tuple[int, int]]:
    """Run a gateway as a process; give its pid and port."""
    command = [sys.executable, "-m", "tests.gateway.front", str(stub[1])]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), 60))
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as client:
            assert (await client.get("/v1/tickets/x")).status_code == 200
        yield process.pid, port
    finally:
        process.kill()
        await process.communicate()


def peak(pid: int) -> int:
    """Read the most memory in bytes that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


async def test_an_upload_of_50_megabytes_leaves_the_door_as_small_as_it_was(
    apart: tuple[int, int],
) -> None:
    pid, port = apart
    before = peak(pid)

    async def file() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(MEGABYTE)

    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=30) as client:
        answered = await client.post("/v1/files?act=count", content=file())
    assert answered.text == str(50 * MEGABYTE)
    assert peak(pid) - before < 16 * MEGABYTE


async def test_a_reader_that_takes_nothing_leaves_the_door_as_small_as_it_was(
    apart: tuple[int, int],
) -> None:
    pid, port = apart
    before = peak(pid)
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(written("GET", "/v1/files/flood"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"52428800" in head
    await asyncio.sleep(0.5)  # long enough for all of it, if anybody collected it
    assert peak(pid) - before < 16 * MEGABYTE
    size = 0
    while piece := await reader.read(MEGABYTE):
        size += len(piece)
    assert size == 50 * MEGABYTE
    assert peak(pid) - before < 16 * MEGABYTE
    writer.close()

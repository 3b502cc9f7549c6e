"""How a process of its own stops: nobody is cut off, and another goes on at once."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from libs.common.bus.kafka import Connection, open_kafka_bus
from libs.contracts.queue import TicketIssued
from libs.contracts.topics import all_topics
from tests.common.carriers import admin_client
from tests.common.helpers import eventually
from tests.support import reachable_folder
from tests.system.city import STREAMS, UNIT, City, free_port, key, service, watched

pytestmark = pytest.mark.system

WISH = {"unit": UNIT, "channel": "web"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty data folder."""
    with reachable_folder() as folder:
        yield folder


def half_said(city: City) -> tuple[socket.socket, bytes]:
    """Begin to ask for a ticket; give the connection and what is still to be sent."""
    body = json.dumps(WISH).encode()
    head = (
        "POST /v1/tickets HTTP/1.1\r\nHost: motcua.test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", int(city.base.rpartition(":")[2])))
    connection.settimeout(20)
    connection.sendall(head.encode() + body[:5])
    return connection, body[5:]


def answer_on(connection: socket.socket) -> bytes:
    """Read to the end of the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def unready(city: City) -> list[str]:
    """Name what keeps a service from being ready, once it also ends its connections."""
    answer = httpx.get(f"{city.base}/readyz", timeout=5)
    closes = answer.headers.get("connection") == "close"
    return list(answer.json()["not_ready"]) if answer.status_code == 503 and closes else []


def refused(city: City) -> bool:
    """Tell whether nobody listens any more."""
    try:
        httpx.get(f"{city.base}/livez", timeout=5)
    except httpx.ConnectError:
        return True
    return False


async def test_a_service_that_is_to_stop_says_so_and_finishes_what_has_begun(
    city_url: str, folder: Path
) -> None:
    told = {"database_url": city_url, "drain_seconds": "3", "finish_seconds": "15"}
    with service("queue", free_port(), folder, **told) as queue:
        queue.wait_until_ready()
        with queue.client() as kept, watched(queue, STREAMS[0]) as (stream,):
            assert "connection" not in kept.get("/livez").headers
            connection, rest = half_said(queue)
            with connection:
                queue.process.terminate()
                assert await eventually(lambda: unready(queue)) == ["stopping"]
                # Who has not heard of it yet is served, and told to go elsewhere with the next.
                last = kept.post("/v1/tickets", json=WISH, headers=key())
                assert (last.status_code, last.headers["connection"]) == (201, "close")
                list(stream)  # ends
                await eventually(lambda: refused(queue))
                connection.sendall(rest)
                assert answer_on(connection).startswith(b"HTTP/1.1 201")
        assert queue.process.wait(20) == 0


async def test_nobody_is_cut_off_and_another_process_carries_the_events_on(
    city_url: str, folder: Path
) -> None:
    def ask(leaving: City, staying: City) -> set[str]:
        """Take tickets of one process until it says that this was the last, then of the other."""
        with leaving.client() as client, staying.client() as other:
            taken: set[str] = set()
            while not take(client, taken):
                pass
            for _ in range(20):
                assert not take(other, taken)
        return taken

    told = {"database_url": city_url, "drain_seconds": "1"}
    with service("queue", free_port(), folder, **told) as first:
        first.wait_until_ready()  # alone, it holds the relay's lock
        with (
            service("queue", free_port(), folder, **told) as second,
            ThreadPoolExecutor(4) as crowd,
        ):
            second.wait_until_ready()
            asking = [crowd.submit(ask, first, second) for _ in range(4)]
            await eventually(lambda: tickets_on_the_bus(city_url))
            first.stop()
            assert first.process.returncode == 0
            taken = set().union(*(one.result(20) for one in asking))

            async def all_of_them() -> bool:
                return await tickets_on_the_bus(city_url) == taken

            assert await eventually(all_of_them)


def take(client: httpx.Client, taken: set[str]) -> bool:
    """Take a ticket; tell whether the connection ends with it."""
    answer = client.post("/v1/tickets", json=WISH, headers=key())
    assert answer.status_code == 201, answer.text
    taken.add(answer.json()["id"])
    return bool(answer.headers.get("connection") == "close")


async def tickets_on_the_bus(url: str) -> set[str]:
    """Name the tickets whose issue has been announced."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT value FROM bus.log WHERE topic = $1 AND headers->>'ce_type' = $2",
            TicketIssued.topic,
            TicketIssued.type_name(),
        )
    finally:
        await connection.close()
    return {str(UUID(json.loads(row["value"])["ticket_id"])) for row in rows}


@pytest.mark.kafka
async def test_who_stops_leaves_its_group_before_it_is_missed(
    database_url: str, kafka: str, folder: Path
) -> None:
    async with open_kafka_bus(Connection(kafka)) as bus:
        await bus.apply_topics(all_topics())
    told = {"database_url": database_url, "kafka_bootstrap": kafka}
    with (
        service("reporting", free_port(), folder, **told) as first,
        service("reporting", free_port(), folder, **told) as second,
    ):
        async with admin_client(kafka) as admin:

            async def both() -> bool:
                return await members(admin) == 2

            await eventually(both, within=60)
            assert first.process.poll() is second.process.poll() is None
            first.stop()
            # A member that fell silent would be in it for ten seconds more.
            assert await members(admin) == 1
        assert first.process.returncode == 0


async def members(admin: AIOKafkaAdminClient) -> int:
    """Count the members of reporting's group."""
    try:
        (answer,) = await admin.describe_consumer_groups(["reporting"])
    except GroupCoordinatorNotAvailableError:
        return 0  # the first group of a new broker
    ((_error, _group, _state, _kind, _protocol, found, *_),) = answer.groups
    return len(found)

"""What the door costs: verifying, limits, the guard, the audit. `python -m tests.bench.door`.

Costs are processor time, ours and PostgreSQL's, which other work on the machine disturbs little.
"""

import asyncio
import contextlib
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import services.queue.main
from libs.common import routes
from libs.common.audit import Entry, with_entry
from libs.common.auth import Principal, Verifier
from libs.common.db import connector, service_url
from libs.common.issuers import TokenSigner
from libs.common.migrate import migrate
from libs.common.observability import configure_logging
from libs.common.postgres import EmbeddedPostgres
from libs.common.settings import Settings
from libs.contracts.registry import ClientChanged, ClientKey, ClientKind
from libs.contracts.topics import all_topics
from services.cli import seed_registry
from services.embedded import city
from services.gateway.addresses import Proxies
from services.gateway.api_keys import ApiKeys
from services.gateway.bodies import check_head
from services.gateway.gates import Gates
from services.gateway.rates import Rates
from services.queue import statements
from services.registry.clients import hash_of
from tests.gateway.city import record
from tests.support import bearer, reachable_folder, settings_for

ISSUER = "https://id.example.org"
UNIT = "H29.26740"
CLIENTS = 16
CALLS = 400
ROUNDS = 12


def microseconds(work: Callable[[], Any], times: int) -> float:
    """Give the median of five runs, for one call."""
    runs = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            work()
        runs.append((time.perf_counter() - start) / times * 1e6)
    return statistics.median(runs)


def verifying() -> None:
    """Time what the gateway and each service do with credentials."""
    claims = {
        "iss": ISSUER, "aud": "motcua", "sub": "ann", "role": "officer", "units": [UNIT],
        "iat": int(time.time()), "exp": int(time.time()) + 3600,
    }  # fmt: skip
    keys: dict[str, Any] = {
        "RS256": rsa.generate_private_key(65537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": Ed25519PrivateKey.generate(),
    }
    for algorithm, key in keys.items():
        verifier = Verifier("motcua")
        verifier.trust(ISSUER, [("k", key.public_key())])
        token = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "k"})

        def afresh(verifier: Verifier = verifier, token: str = token) -> None:
            verifier._seen.clear()
            verifier.verify(token)

        first = microseconds(afresh, 300)
        again = microseconds(lambda v=verifier, t=token: v.verify(t), 20_000)  # type: ignore[misc]
        print(f"verify {algorithm}: {first:.0f} us the first time, {again:.2f} us again")
    api_keys = ApiKeys()
    for number in range(400):
        client = ClientChanged(
            id=f"kiosk-{number}", version=1, kind=ClientKind.kiosk, units=(UNIT,),
            keys=(ClientKey(sha256=hash_of(f"motcua_{number}")),),
        )  # fmt: skip
        api_keys.take(record(client))
    signer = TokenSigner(keys["EdDSA"], "motcua")
    found = microseconds(lambda: signer.token(api_keys.holder(b"motcua_7")), 20_000)
    fresh = microseconds(lambda: TokenSigner(keys["EdDSA"], "motcua").token(Principal()), 300)
    print(f"API key to token: {found:.2f} us, {fresh:.0f} us when it is signed anew")


async def limiting() -> None:
    """Time what the limits cost each call: where it comes from, its head, its rate, its place."""
    settings = Settings(rate_anonymous_reads="1000000/minute", trusted_proxies="10.0.0.0/8")
    rates, gates, proxies = Rates(settings), Gates(settings), Proxies(settings.proxies)
    for number in range(10_000):
        await rates.spend("anonymous-reads", f"caller {number}")
    scope = {
        "type": "http", "method": "GET", "path": "/v1/tickets/x", "raw_path": b"/v1/tickets/x",
        "query_string": b"", "http_version": "1.1", "scheme": "http",
        "headers": [
            (b"host", b"motcua"), (b"user-agent", b"bench"), (b"accept", b"*/*"),
            (b"accept-encoding", b"gzip"), (b"x-forwarded-for", b"198.51.100.7, 10.0.0.2"),
        ],
    }  # fmt: skip

    def place() -> None:
        proxies.place(scope | {"client": ("10.0.0.1", 1)})

    def gate() -> None:
        with gates.passing("queue", scope):
            pass

    times = 20_000
    start = time.perf_counter()
    for _ in range(times):
        await rates.spend("anonymous-reads", "caller 7")
    rate = (time.perf_counter() - start) / times * 1e6
    head = microseconds(lambda: check_head(scope, settings), times)
    print(
        f"limits: {rate:.1f} us the rate, among 10,000 addresses; {head:.1f} us the head; "
        f"{microseconds(place, times):.1f} us the address behind two proxies; "
        f"{microseconds(gate, times):.1f} us the place"
    )


Call = Callable[[], Awaitable[None]]


def caller_of(app: Any) -> Call:
    """Make the call that takes a ticket, without a client in between."""
    authorization = bearer("kiosk", UNIT)["Authorization"].encode()
    body = b'{"unit": "%s", "channel": "kiosk"}' % UNIT.encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/v1/tickets", "raw_path": b"/v1/tickets", "query_string": b"",
        "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "headers": [
            (b"host", b"motcua"), (b"authorization", authorization),
            (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)),
        ],
    }  # fmt: skip

    async def call() -> None:
        status = 0

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        await app(dict(scope), receive, send)
        assert status == 201, status

    return call


def server_seconds() -> float:
    """Give the processor time of our own server's processes."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = (process / "stat").read_text().rpartition(") ")
            if "(postgres" in name:
                fields = rest.split()
                parents[int(process.name)] = int(fields[1])
                ticks[int(process.name)] = int(fields[11]) + int(fields[12])
    ours = {pid for pid, parent in parents.items() if parent == os.getpid()}
    mine = (n for pid, n in ticks.items() if pid in ours or parents[pid] in ours)
    return sum(mine) / os.sysconf("SC_CLK_TCK")


async def cost_of_a_ticket(call: Call) -> tuple[float, float]:
    """Take tickets with several clients at once; give microseconds of ours and the server's."""
    left = CALLS

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    ours, theirs = time.process_time(), server_seconds()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    ours, theirs = time.process_time() - ours, server_seconds() - theirs
    return ours / CALLS * 1e6, theirs / CALLS * 1e6


@contextlib.contextmanager
def without_audit() -> Iterator[None]:
    """Let the guard rule and nothing be noted."""

    class Silent(Entry):
        @classmethod
        def of(cls, *arguments: Any) -> Any:
            entry = super().of(*arguments)
            entry.noted = True
            return entry

    with patch.object(routes, "Entry", Silent):
        yield


@contextlib.contextmanager
def afterwards() -> Iterator[None]:
    """Note in a statement of its own, after the one with the effect."""
    with patch("libs.common.audit.with_entry", lambda _: None):
        yield


@contextlib.contextmanager
def without_guard() -> Iterator[None]:
    """Neither rule nor note."""
    state = services.queue.main.app.state
    access, state.access = state.access, None
    try:
        yield
    finally:
        state.access = access


WAYS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "neither guard nor audit": without_guard,
    "guard, no audit": without_audit,
    "guard, audit inside the statement (as it is)": contextlib.nullcontext,
    "guard, audit in a second statement": afterwards,
}


async def statements_alone(url: str) -> None:
    """Run the statement that issues a ticket with and without its entry, by turns."""
    connection = await connector(service_url(settings_for(url), "queue"), "queue")()
    # Waiting for the disk would hide what the statement itself costs.
    await connection.execute("SET synchronous_commit = off")
    audited = with_entry(statements.ISSUE)
    assert audited is not None
    times: dict[str, list[float]] = {statements.ISSUE: [], audited: []}
    now = datetime.now(UTC)
    for _ in range(2000):
        for statement, taken in times.items():
            arguments = [
                uuid4(), UNIT, "Z", now.date(), "normal", "web", [], None, now,
                now + timedelta(minutes=20), None, uuid4(), "00-x", None, None, now,
            ]  # fmt: skip
            if statement == audited:
                arguments += ["ann", "officer", "POST", "/v1/tickets", "0" * 32, 201]
            start = time.perf_counter()
            await connection.fetchrow(statement, *arguments)
            taken.append(time.perf_counter() - start)
    await connection.close()
    for name, taken in zip(("without", "with"), times.values(), strict=True):
        quartiles = [q * 1e6 for q in statistics.quantiles(taken, n=4)]
        print(f"issuing statement {name} its entry: {quartiles[1]:.0f} us "
              f"(quartiles {quartiles[0]:.0f}-{quartiles[2]:.0f})")  # fmt: skip


async def tickets(url: str) -> None:
    """Take tickets in each way by turns: what the machine does besides hits all of them."""
    settings = settings_for(url, database_pool=8)
    await migrate(settings, list(all_topics()))
    await seed_registry(settings)
    await statements_alone(url)
    async with city(settings) as app:
        await asyncio.sleep(2)
        call = caller_of(app)
        await cost_of_a_ticket(call)
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
        for _ in range(ROUNDS):
            for name, way in random.sample(list(WAYS.items()), len(WAYS)):
                with way():
                    costs[name].append(await cost_of_a_ticket(call))
    print(f"a ticket's processor time, {ROUNDS} rounds of {CALLS} with {CLIENTS} clients:")
    for name, found in costs.items():
        ours, theirs = zip(*found, strict=True)
        print(
            f"{name}: {statistics.median(ours):.0f} us ours (least {min(ours):.0f}) + "
            f"{statistics.median(theirs):.0f} us the server's (least {min(theirs):.0f})"
        )


def main() -> None:
    """Measure and print."""
    verifying()
    asyncio.run(limiting())
    configure_logging("WARNING")
    with reachable_folder() as folder, EmbeddedPostgres(folder) as server:
        asyncio.run(tickets(server.url))


if __name__ == "__main__":
    main()

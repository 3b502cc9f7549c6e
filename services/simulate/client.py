"""How the actors call: keys, retries and repeats, so that an answer is had exactly once."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from itertools import cycle
from random import Random
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
from yarl import URL

from services.simulate.ledger import Ledger

_ONE_TRY = aiohttp.ClientTimeout(total=20)
_LONGEST_PAUSE = 2.0


class Unsettled(Exception):
    """A request was not answered for as long as patience lasted."""


@dataclass(slots=True)
class Traffic:
    """What went over the wire."""

    calls: int = 0
    retries: int = 0
    repeats: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """Why requests were tried again, and how often."""
    times: list[float] = field(default_factory=list)
    """How long each answered call took, in wall seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and the body's bytes."""

    status: int
    body: bytes
    replayed: bool

    @property
    def ok(self) -> bool:
        """Whether the request was granted."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Any:
        """The body as data."""
        return orjson.loads(self.body)


class Door:
    """A client of the gateway.

    Every POST carries a key. What gets no answer, or 429, 500 or above, is sent again with that
    key until it is answered or patience (wall seconds since it was first sent) is at its end. A
    share of the answered ones is repeated as a bad network would; each repetition must give the
    same answer, marked as such, or the ledger holds a violation. Of several doors each request,
    and each try, takes the next one, as a load balancer would have it.
    """

    def __init__(
        self, session: aiohttp.ClientSession, bases: Sequence[str], ledger: Ledger, *,
        connections: int, patience: float, repeats: float, chance: Random,
    ) -> None:  # fmt: skip
        """Take an open session; see `opened`."""
        self.traffic = Traffic()
        # Not left to the session: its time-out would run while a request waits for its turn here.
        self._turns = asyncio.Semaphore(connections)
        self._hurried: tuple[float, float] | None = None
        self._session, self._ledger = session, ledger
        self._bases = cycle([base.rstrip("/") for base in bases])
        self.patience, self._repeats, self._chance = patience, repeats, chance

    def hurry(self, patience: float) -> None:
        """From now on wait no longer than so many seconds for who does not answer."""
        self._hurried = time.monotonic(), patience

    def take_time(self) -> None:
        """Be as patient as at the beginning again."""
        self._hurried = None

    async def get(self, path: str, who: dict[str, str]) -> Answer:
        """Read."""
        return await self._patiently("GET", path, None, who)

    async def put(self, path: str, body: Any, who: dict[str, str]) -> Answer:
        """Replace; putting twice is putting once."""
        return await self._patiently("PUT", path, orjson.dumps(body), who)

    async def post(self, path: str, who: dict[str, str], body: Any = None) -> Answer:
        """Ask for an effect, once, however often it has to be sent.

        Raises:
            Unsettled: nobody answered for as long as patience lasted.
        """
        data = None if body is None else orjson.dumps(body)
        headers = who | {"Idempotency-Key": str(uuid4())}
        answer = await self._patiently("POST", path, data, headers)
        if answer.ok and answer.status != 204 and self._chance.random() < self._repeats:
            await self._repeat(path, data, headers, answer)
        return answer

    async def _repeat(
        self, path: str, data: bytes | None, headers: dict[str, str], first: Answer
    ) -> None:
        again = await self._patiently("POST", path, data, headers)
        self.traffic.repeats += 1
        if (again.status, again.body) != (first.status, first.body) or not again.replayed:
            self._ledger.violations.append(
                f"POST {path} sent again was answered {again.status} instead of {first.status}"
                + ("" if again.body == first.body else ", with another body")
                + ("" if again.replayed else ", not marked as replayed")
            )

    async def _patiently(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str]
    ) -> Answer:
        began, pause = 0.0, 0.1
        while True:
            url = URL(next(self._bases) + path, encoded=True)
            try:
                async with self._turns:
                    started = time.monotonic()
                    began = began or started
                    answer, wait = await self._once(method, url, data, headers)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why, wait = type(error).__name__, 0.0
            else:
                if answer.status < 500 and answer.status != 429:
                    self.traffic.calls += 1
                    self.traffic.times.append(time.monotonic() - started)
                    return answer
                why = str(answer.status)
                if answer.status == 500:
                    self._ledger.violations.append(f"{method} {path} was answered 500")
            self._note_failure(method, path, why, began)
            await asyncio.sleep(max(wait, pause * self._chance.uniform(0.5, 1)))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _once(
        self, method: str, url: URL, data: bytes | None, headers: dict[str, str]
    ) -> tuple[Answer, float]:
        async with self._session.request(method, url, data=data, headers=headers) as response:
            body = await response.read()
            marked = response.headers.get("Idempotent-Replayed") == "true"
            after = response.headers.get("Retry-After", "0")
            return Answer(response.status, body, marked), float(after) if after.isdigit() else 0.0

    def _note_failure(self, method: str, path: str, why: str, began: float) -> None:
        self.traffic.retries += 1
        self.traffic.failures[why] = self.traffic.failures.get(why, 0) + 1
        patience = self.patience
        if self._hurried is not None:
            patience, began = min(patience, self._hurried[1]), max(began, self._hurried[0])
        if time.monotonic() - began > patience:
            self._ledger.unsettled.append(f"{method} {path}: {why}")
            raise Unsettled(f"{method} {path} was not answered for {patience:.0f} s ({why})")


def own_address(number: int) -> dict[str, str]:
    """Make the header by which a citizen calls from an address of its own, as in life.

    The door limits calls without credentials by address. In development it believes a client on the
    same machine (`MOTCUA_TRUSTED_PROXIES`); elsewhere the header is dropped.
    """
    # The block that telephone companies have for their customers (RFC 6598).
    return {"X-Forwarded-For": str(_CUSTOMERS[number % _CUSTOMERS.num_addresses])}


_CUSTOMERS = IPv4Network("100.64.0.0/10")


def opened() -> aiohttp.ClientSession:
    """Open a session; idle connections are given up before the server does so."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
        timeout=_ONE_TRY,
        headers={"Content-Type": "application/json"},
        auto_decompress=False,
    )

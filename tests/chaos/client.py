"""A client that does not give up: one key, repeated until the answer has come."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import uuid4

import aiohttp
import orjson

from tests.chaos.ledger import Ledger

PATIENCE = 120.0
"""Seconds after which a client that was never answered gives up: then the run has failed."""


class GaveUp(Exception):
    """A request was not answered within the client's patience."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered in the end."""

    status: int
    body: Any
    began: float
    """When it was first sent (monotonic)."""
    sent: float
    """When the attempt was sent that was answered."""
    came: float
    """When the answer had come."""


class Client:
    """Sends requests to one of several doors; a repeat goes to the next one."""

    repeated_share = 0.02
    """How many answered requests are sent once more, to see that the answer is the same."""

    def __init__(
        self, session: aiohttp.ClientSession, doors: Sequence[str], ledger: Ledger, dice: Any
    ) -> None:
        """Use `connected` instead of opening sessions by hand."""
        self._session = session
        self._doors = doors
        self._ledger = ledger
        self._dice: random.Random = dice

    async def post(
        self, path: str, headers: dict[str, str], body: Any = None, *, refused: Sequence[int] = ()
    ) -> Answer:
        """Send until it is acknowledged or refused as the caller expects (`refused` statuses).

        Raises:
            GaveUp: no answer came in all the time.
        """
        headers = headers | {"Idempotency-Key": str(uuid4())}
        answer = await self._until_answered(path, headers, body, (200, 201, 204, *refused))
        if answer.status in (200, 201):
            self._ledger.moments.append((answer.sent, answer.came))
            if self._dice.random() < self.repeated_share:
                await self._repeat(path, headers, body, answer)
        return answer

    async def set_counter(self, unit: str, number: int, state: str, headers: dict[str, str]) -> int:
        """Open or close a counter, asked again until it is answered; give the status."""
        url = f"/v1/units/{unit}/counters/{number}"
        async with asyncio.timeout(PATIENCE):
            while True:
                door = self._dice.choice(self._doors)
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with self._session.put(
                        door + url, json={"state": state}, headers=headers
                    ) as answer:
                        if answer.status in (200, 409):
                            self._ledger.counts["operations"] += 1
                            return answer.status
                        if answer.status != 503:
                            self._note(url, answer.status, await answer.text())
                await asyncio.sleep(0.05)

    async def _until_answered(
        self, path: str, headers: dict[str, str], body: Any, expected: Sequence[int]
    ) -> Answer:
        began, door, pause = monotonic(), self._dice.randrange(len(self._doors)), 0.02
        while True:
            sent = monotonic()
            status, content, again = await self._send(
                self._doors[door % len(self._doors)] + path, headers, body
            )
            if status is not None and status in expected:
                self._ledger.counts["operations"] += 1
                if again:
                    self._ledger.counts["answers given again after a repeat"] += 1
                return Answer(status, content, began, sent, monotonic())
            self._note(path, status, content)
            if monotonic() - began > PATIENCE:
                raise GaveUp(f"{path} was not answered for {PATIENCE:.0f} s; last {status}")
            self._ledger.counts["repeats"] += 1
            await asyncio.sleep(pause * self._dice.uniform(0.5, 1.5))
            pause, door = min(pause * 2, 0.3), door + 1

    async def _send(
        self, url: str, headers: dict[str, str], body: Any
    ) -> tuple[int | None, Any, bool]:
        """Send once; no status means that the answer did not come, or not whole."""
        try:
            async with self._session.post(url, json=body, headers=headers) as answer:
                raw = await answer.read()
                content = orjson.loads(raw) if raw else None
                return answer.status, content, "Idempotent-Replayed" in answer.headers
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return None, type(error).__name__, False

    def _note(self, path: str, status: int | None, content: Any) -> None:
        if status is None:
            self._ledger.counts["answers that never came"] += 1
            if content == "TimeoutError":
                self._ledger.counts["timeouts"] += 1
        elif status == 503:
            self._ledger.counts["answered 503"] += 1
        else:
            self._ledger.surprises.append(f"{path}: {status} {content}"[:400])

    async def _repeat(self, path: str, headers: dict[str, str], body: Any, first: Answer) -> None:
        """Send an answered request again: nothing may happen and nothing else be said."""
        second = await self._until_answered(path, headers, body, (200, 201, 204))
        self._ledger.counts["repeats on purpose"] += 1
        if (second.status, second.body) != (first.status, first.body):
            self._ledger.surprises.append(f"{path}: a repeat was answered differently")

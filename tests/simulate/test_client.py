"""How the actors call, against a gateway that misbehaves: one effect, one answer, or a word."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from services.simulate.client import Door, Unsettled, opened
from services.simulate.demand import draws
from services.simulate.ledger import Ledger

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_ME = {"Authorization": "Bearer x"}


@asynccontextmanager
async def door_to(
    handler: Handler,
    ledger: Ledger,
    *,
    repeats: float = 0,
    patience: float = 5,
    before: Sequence[str] = (),
) -> AsyncIterator[Door]:
    """Open a door whose other side is a handler; `before` are other doors, taken in turn."""
    runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with opened() as session:
            yield Door(session, [*before, site.name], ledger, connections=4, patience=patience,
                       repeats=repeats, chance=draws(1, "network"))  # fmt: skip
    finally:
        await runner.cleanup()


class Gateway:
    """Answers what it is told to, keeps answers by key, and remembers who asked for what."""

    def __init__(self, *plan: int | None) -> None:
        """Plan the first answers; None breaks the connection after the effect."""
        self.plan = list(plan)
        self.effects = 0
        self.keys: list[str] = []
        self.kept: dict[str, bytes] = {}

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer."""
        key = request.headers["Idempotency-Key"]
        self.keys.append(key)
        if key in self.kept:
            return web.Response(body=self.kept[key], headers={"Idempotent-Replayed": "true"})
        told = self.plan.pop(0) if self.plan else 200
        if told is not None and told >= 400:
            return web.Response(status=told, headers={"Retry-After": "0"})
        self.effects += 1
        self.kept[key] = f'{{"effect": {self.effects}}}'.encode()
        if told is None:
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=told or 200, body=self.kept[key])


@pytest.mark.parametrize("trouble", [[None], [503], [429, 503], [503, None]])
async def test_what_was_not_answered_is_sent_again_with_its_key(trouble: list[int | None]) -> None:
    gateway, ledger = Gateway(*trouble), Ledger()
    async with door_to(gateway, ledger) as door:
        answer = await door.post("/v1/tickets", _ME, {"unit": "H29.1"})
    assert answer.json == {"effect": 1}
    assert gateway.effects == 1
    assert len(gateway.keys) == len(trouble) + 1
    assert len(set(gateway.keys)) == 1
    assert (door.traffic.retries, door.traffic.calls) == (len(trouble), 1)
    assert not ledger.violations
    assert not ledger.unsettled


async def test_a_repeated_request_must_be_answered_the_same_and_marked() -> None:
    ledger = Ledger()
    async with door_to(Gateway(), ledger, repeats=1) as door:
        await door.post("/v1/tickets", _ME)
    assert door.traffic.repeats == 1
    assert not ledger.violations

    async def forgetful(_: web.Request) -> web.StreamResponse:
        return web.Response(body=str(next(numbers)).encode())

    numbers = iter(range(9))
    async with door_to(forgetful, ledger, repeats=1) as door:
        await door.post("/v1/tickets", _ME)
    (said,) = ledger.violations
    assert "another body" in said
    assert "not marked as replayed" in said


async def test_nobody_repeats_what_had_no_effect() -> None:
    async def nobody_waits(_: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    async with door_to(nobody_waits, Ledger(), repeats=1) as door:
        assert (await door.post("/v1/units/H29.1/counters/1/call-next", _ME)).status == 204
    assert (door.traffic.repeats, door.traffic.calls) == (0, 1)


async def test_refusals_are_answers() -> None:
    gateway = Gateway(409)
    async with door_to(gateway, Ledger()) as door:
        assert (await door.post("/v1/tickets", _ME)).status == 409
    assert len(gateway.keys) == 1


async def test_a_defect_of_the_server_is_a_broken_promise_and_tried_again() -> None:
    ledger = Ledger()
    async with door_to(Gateway(500), ledger) as door:
        assert (await door.post("/v1/tickets", _ME)).ok
    assert ledger.violations == ["POST /v1/tickets was answered 500"]


async def test_patience_has_an_end_and_the_ledger_says_what_is_unknown() -> None:
    ledger = Ledger()
    async with door_to(Gateway(*[503] * 1000), ledger, patience=0.2) as door:
        with pytest.raises(Unsettled):
            await door.post("/v1/tickets", _ME)
    assert ledger.unsettled == ["POST /v1/tickets: 503"]


async def test_waiting_for_ones_turn_costs_no_patience() -> None:
    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return web.Response(body=b"{}")

    async with door_to(slow, ledger := Ledger(), patience=0.01) as door:
        posts: list[Any] = [door.post("/v1/tickets", _ME) for _ in range(20)]
        answers = await asyncio.gather(*posts)
    assert all(answer.ok for answer in answers)
    assert not ledger.unsettled


async def test_of_two_doors_one_that_is_shut_costs_a_try_and_nothing_else() -> None:
    ledger, gateway = Ledger(), Gateway()
    nobody_listens = ["http://127.0.0.1:9"]
    async with door_to(gateway, ledger, before=nobody_listens) as door:
        answers = [await door.post("/v1/tickets", _ME) for _ in range(4)]
    assert [answer.json["effect"] for answer in answers] == [1, 2, 3, 4]
    assert door.traffic.retries == 4
    assert len(set(gateway.keys)) == 4

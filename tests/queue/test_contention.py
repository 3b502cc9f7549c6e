"""Two replicas, sixteen counters of one unit, everybody at once: nobody lost, nobody twice.

`MOTCUA_TEST_CONTENTION_TICKETS` makes a longer run: `=5000` for some minutes.
"""

import asyncio
import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import httpx

from libs.common.outbox import drained
from services.queue.main import app
from tests.queue.hall import (
    announced,
    call,
    core_of,
    eventually,
    keyed,
    officer,
    set_counter,
    step,
    take,
)
from tests.support import running, settings_for

UNIT = "H29.25747"
TICKETS = int(os.environ.get("MOTCUA_TEST_CONTENTION_TICKETS", "320"))
COUNTERS = 16
ISSUERS = 6
BURST = 15
REPEATED = 0.10
CANCELLED = 0.08


@dataclass
class Ledger:
    """What clients were told, by an account of their own: monotonic instants."""

    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting_since: dict[str, float] = field(default_factory=dict)
    """When the answer with the ticket had come."""
    taking_began: dict[str, float] = field(default_factory=dict)
    """When the request that took the ticket out of the queue was sent."""
    nobody: list[tuple[float, float]] = field(default_factory=list)
    """When a 204 was asked for and answered."""
    called: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    issuing: int = ISSUERS
    cancelling: int = 0

    def taken(self, ticket: str, began: float) -> None:
        """Note that a ticket stopped waiting because of a request sent at `began`."""
        self.taking_began[ticket] = min(began, self.taking_began.get(ticket, began))

    def overlooked(self) -> list[str]:
        """List who waited all the time while a counter was told that nobody does."""
        return [
            ticket
            for asked, answered in self.nobody
            for ticket, since in self.waiting_since.items()
            if since < asked and self.taking_began.get(ticket, answered + 1) > answered
        ]


class Hall:
    """The clients of both replicas."""

    def __init__(self, replicas: list[httpx.AsyncClient]) -> None:
        self.replicas = replicas
        self.ledger = Ledger()
        self.dice = random.Random(20261116)  # noqa: S311  (the same run each time)
        self.cancels: set[asyncio.Task[None]] = set()

    def any(self) -> httpx.AsyncClient:
        """Choose a replica, as a load balancer would."""
        return self.dice.choice(self.replicas)

    async def post(self, path: str, headers: dict[str, str], **more: Any) -> httpx.Response:
        """Send a call with a key; some are sent twice, at once or afterwards, to any replica."""
        headers = keyed(uuid4(), headers)

        async def send() -> httpx.Response:
            return await self.any().post(path, headers=headers, **more)

        if self.dice.random() >= REPEATED:
            return await send()
        self.ledger.counts["repeated"] += 1
        at_once = self.dice.random() < 0.5
        answers = await asyncio.gather(send(), send()) if at_once else [await send(), await send()]
        done = [answer for answer in answers if answer.status_code in (200, 201)]
        if not done:
            return answers[0]
        assert len({(answer.status_code, answer.content) for answer in done}) == 1
        assert sum("Idempotent-Replayed" not in answer.headers for answer in done) == 1
        if len(done) == 1:
            # Nobody waited yet when the one was asked, somebody did when the other was.
            assert [answer.status_code for answer in answers if answer not in done] == [204]
            assert at_once or answers[1] is done[0]
        return done[0]

    async def issue(self, count: int) -> None:
        """Hand out tickets; a few are given up again soon."""
        classes = ["normal"] * 8 + ["elderly", "appointment"]
        for place in range(count):
            if place % BURST == 0:
                await self.everybody_gone()
            wish = {
                "unit": UNIT,
                "channel": "counter",
                "priority_class": self.dice.choice(classes),
            }
            answer = await self.post("/v1/tickets", officer(UNIT, 1), json=wish)
            assert answer.status_code == 201, answer.text
            ticket = answer.json()
            self.ledger.tickets[ticket["id"]] = ticket
            self.ledger.waiting_since[ticket["id"]] = monotonic()
            if self.dice.random() < CANCELLED:
                self.ledger.cancelling += 1
                task = asyncio.create_task(self.cancel(ticket))
                self.cancels.add(task)
        self.ledger.issuing -= 1

    async def everybody_gone(self) -> None:
        """Come in bursts, so that counters also run out of people while others still call."""

        async def all_taken() -> bool:
            return len(self.ledger.taking_began) == len(self.ledger.tickets)

        assert await eventually(all_taken, within=30)

    async def cancel(self, ticket: dict[str, Any]) -> None:
        """Give a place up, unless somebody was quicker."""
        began = monotonic()
        answer = await self.post(f"/v1/tickets/{ticket['id']}/cancel", officer(UNIT, 99))
        assert answer.status_code in (200, 409), answer.text
        if answer.status_code == 200:
            self.ledger.taken(ticket["id"], began)
        self.ledger.counts[f"cancel {answer.status_code}"] += 1
        self.ledger.cancelling -= 1

    async def serve(self, number: int) -> None:
        """Call, start and finish at a counter until all are served."""
        headers = officer(UNIT, number)
        while True:
            over = not self.ledger.issuing and not self.ledger.cancelling
            began = monotonic()
            path = f"/v1/units/{UNIT}/counters/{number}/call-next"
            answer = await self.post(path, headers)
            self.ledger.counts[f"call-next {answer.status_code}"] += 1
            if answer.status_code == 204:
                self.ledger.nobody.append((began, monotonic()))
                if over:
                    return
                await asyncio.sleep(0.002)
                continue
            assert answer.status_code == 200, answer.text
            ticket = answer.json()
            assert (ticket["status"], ticket["counter"]) == ("called", number)
            assert ticket["wait_seconds"] >= 0
            self.ledger.called[ticket["id"]] += 1
            self.ledger.taken(ticket["id"], began)
            for name in ("start", "finish"):
                moved = await self.post(f"/v1/tickets/{ticket['id']}/{name}", headers)
                assert moved.status_code == 200, moved.text


async def test_sixteen_counters_and_two_replicas_lose_nobody_and_call_nobody_twice(
    city_url: str,
) -> None:
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(running(app, settings_for(city_url))) for _ in range(2)
        ]
        for number in range(1, COUNTERS + 1):
            assert (await set_counter(replicas[0], UNIT, number)).status_code == 200
        hall = Hall(replicas)
        began = monotonic()
        async with asyncio.timeout(60 + TICKETS / 10):
            await asyncio.gather(
                *(hall.issue(TICKETS // ISSUERS) for _ in range(ISSUERS)),
                *(hall.serve(number) for number in range(1, COUNTERS + 1)),
            )
            await asyncio.gather(*hall.cancels)
        print(f"{monotonic() - began:.1f} s", dict(sorted(hall.ledger.counts.items())))
        await _check(replicas[0], hall.ledger)


async def _check(queue: httpx.AsyncClient, ledger: Ledger) -> None:
    """Compare what clients were told with what is stored and what was announced."""
    count = TICKETS // ISSUERS * ISSUERS
    assert len(ledger.tickets) == count
    numbers = {ticket["number"] for ticket in ledger.tickets.values()}
    assert numbers == {f"A{n:03}" for n in range(1, count + 1)}, "no number twice, no gap"
    rows = await core_of(queue).db.hot.fetch("SELECT id, status, version, number FROM tickets")
    assert {str(row["id"]) for row in rows} == set(ledger.tickets)
    finished = {str(row["id"]) for row in rows if row["status"] == "finished"}
    cancelled = {str(row["id"]) for row in rows if row["status"] == "cancelled"}
    assert finished | cancelled == set(ledger.tickets), "nobody is left"
    assert finished == set(ledger.called), "who was told to come was called"
    assert set(ledger.called.values()) == {1}, "nobody is called twice"
    assert len(cancelled) == ledger.counts["cancel 200"]
    assert ledger.overlooked() == [], "204 only when nobody waits"

    assert await drained(core_of(queue).db, within=10)
    events: dict[str, list[tuple[str, int]]] = {}
    for type_, body in await announced(queue, UNIT):
        events.setdefault(body["ticket_id"], []).append((type_, body["version"]))
    served = ["TicketIssued", "TicketCalled", "TicketStarted", "TicketFinished"]
    for ticket in ledger.tickets:
        steps = served if ticket in finished else ["TicketIssued", "TicketCancelled"]
        assert events[ticket] == [(name, at) for at, name in enumerate(steps, start=1)]
    assert len(events) == count


async def test_a_counter_that_two_officers_call_at_calls_one_person(
    city_url: str,
) -> None:
    """And an officer who calls at two counters at once is given one person."""
    async with running(app, settings_for(city_url)) as queue:
        for number in (1, 2):
            await set_counter(queue, UNIT, number)
        for round_ in range(20):
            for _ in range(4):
                wish = {"unit": UNIT, "channel": "web"}
                assert (await queue.post("/v1/tickets", json=wish)).status_code == 201
            if round_ % 2:
                asks = [(1, officer(UNIT, desk)) for desk in (1, 2, 3)]
            else:
                asks = [(number, officer(UNIT, 1)) for number in (1, 2)]
            answers = await asyncio.gather(
                *(
                    queue.post(f"/v1/units/{UNIT}/counters/{number}/call-next", headers=headers)
                    for number, headers in asks
                )
            )
            statuses = sorted(answer.status_code for answer in answers)
            assert statuses == [200] + [409] * (len(asks) - 1), [a.text for a in answers]
            [(ticket, headers)] = [
                (answer.json(), headers)
                for answer, (_, headers) in zip(answers, asks, strict=True)
                if answer.status_code == 200
            ]
            assert (await step(queue, ticket, "no-show", headers=headers)).status_code == 200
        assert (await call(queue, UNIT, 1)).status_code == 200


async def test_who_was_about_to_be_called_elsewhere_and_was_not_is_not_passed_over(
    city_url: str,
) -> None:
    """A statement that is undone lets its person wait again: until then nobody is told 204."""
    async with running(app, settings_for(city_url)) as queue:
        await set_counter(queue, UNIT)
        ticket = await take(queue, UNIT)
        async with core_of(queue).db.hot.acquire() as connection:
            elsewhere = connection.transaction()
            await elsewhere.start()
            await connection.execute(
                "SELECT FROM tickets WHERE id = $1 FOR UPDATE", UUID(ticket["id"])
            )
            asked = asyncio.create_task(call(queue, UNIT))
            done, _ = await asyncio.wait([asked], timeout=0.1)
            await elsewhere.rollback()
        assert not done
        answer = await asked
        assert (answer.status_code, answer.json()["id"]) == (200, ticket["id"])

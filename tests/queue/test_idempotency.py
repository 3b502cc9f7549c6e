"""The same call with the same key: one effect, one answer, however often and however at once."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from libs.common.auth import Principal
from libs.common.idempotency import Key, Replay
from services.queue.domain import calls, moves
from services.queue.policy import Rules
from tests.queue.hall import (
    MONDAY,
    call,
    core_of,
    facts,
    keyed,
    manager,
    officer,
    set_counter,
    step,
    take,
)
from tests.support import FrozenClock, bearer, fields_of, settings_for

REPLAYED = "Idempotent-Replayed"
CALLS = ("issue", "call-next", "start", "finish", "no-show", "cancel")

Call = Callable[[str], Coroutine[Any, Any, httpx.Response]]


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


async def prepared(queue: httpx.AsyncClient, unit: str, name: str) -> Call:
    """Bring a unit to where a call has an effect; give the call, which takes a key."""
    if name == "issue":
        headers = officer(unit)
        wish = {"unit": unit, "channel": "counter"}
        return lambda key: queue.post("/v1/tickets", json=wish, headers=keyed(key, headers))
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    await take(queue, unit)
    if name == "call-next":
        return lambda key: call(queue, unit, 1, key)
    if name != "cancel":
        ticket = (await call(queue, unit)).json()
    if name == "finish":
        await step(queue, ticket, "start")
    return lambda key: step(queue, ticket, name, headers=keyed(key, officer(unit)))


async def settle(queue: httpx.AsyncClient, unit: str) -> None:
    """Free the counter and let everybody go home, so that a next round can begin."""
    await core_of(queue).db.hot.execute(
        "UPDATE tickets SET status = 'cancelled' WHERE unit = $1"
        " AND status IN ('waiting', 'called', 'serving')",
        unit,
    )


@pytest.mark.parametrize("name", CALLS)
async def test_a_repeated_call_is_answered_as_before_and_changes_nothing(
    queue: httpx.AsyncClient, unit: str, name: str
) -> None:
    do = await prepared(queue, unit, name)
    key = str(uuid4())
    first = await do(key)
    assert first.status_code == (201 if name == "issue" else 200), first.text
    assert REPLAYED not in first.headers
    after = await facts(queue, unit)
    for _ in range(3):
        again = await do(key)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers[REPLAYED] == "true"
        assert again.headers["content-type"] == "application/json"
    assert await facts(queue, unit) == after


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("twins", [2, 5])
async def test_twins_in_flight_have_one_effect_and_one_answer(
    queue: httpx.AsyncClient, unit: str, name: str, twins: int
) -> None:
    for _ in range(12 if twins == 2 else 6):
        do = await prepared(queue, unit, name)
        before = await facts(queue, unit)
        key = str(uuid4())
        answers = await asyncio.gather(*(do(key) for _ in range(twins)))
        seen = {(answer.status_code, answer.content) for answer in answers}
        assert len(seen) == 1, [(answer.status_code, answer.text) for answer in answers]
        assert answers[0].is_success, answers[0].text
        assert sum(REPLAYED not in answer.headers for answer in answers) == 1
        one = {"tickets": int(name == "issue"), "numbers": int(name == "issue")}
        one |= {"changes": 1, "events": 1, "keys": 1}
        after = await facts(queue, unit)
        assert {what: after[what] - before[what] for what in after} == one
        await settle(queue, unit)


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_whose_twin_is_just_being_answered_waits_for_it(
    queue: httpx.AsyncClient, unit: str, name: str
) -> None:
    """The first is held at the last moment before its commit, when a second one comes."""
    pool = core_of(queue).db.hot
    do = await prepared(queue, unit, name)
    key = str(uuid4())
    async with pool.acquire() as connection:
        # Nothing is kept while the table of keys is locked, so the first stands in its statement.
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE idempotency_keys IN SHARE MODE")
        answers = [asyncio.create_task(do(key)) for _ in range(3)]
        done, _ = await asyncio.wait(answers, timeout=0.15)
        await transaction.rollback()
    assert not done
    seen = {(answer.status_code, answer.content) for answer in await asyncio.gather(*answers)}
    assert len(seen) == 1, seen
    assert all(status in (200, 201) for status, _ in seen)


async def test_a_key_that_came_with_another_body_is_refused_and_nothing_changes(
    queue: httpx.AsyncClient, unit: str
) -> None:
    headers = keyed(uuid4())
    wish = {"unit": unit, "channel": "web"}
    first = await queue.post("/v1/tickets", json=wish, headers=headers)
    before = await facts(queue, unit)
    other = await queue.post("/v1/tickets", json=wish | {"series": "B"}, headers=headers)
    assert other.status_code == 422
    assert fields_of(other) == {"Idempotency-Key"}
    assert await facts(queue, unit) == before
    same = {"channel": "web", "unit": unit}  # the order of members is not another body
    assert (await queue.post("/v1/tickets", json=same, headers=headers)).text == first.text


@pytest.mark.parametrize("name", ["start", "finish", "no-show", "cancel"])
async def test_a_step_with_the_same_key_and_another_body_is_refused(
    queue: httpx.AsyncClient, unit: str, name: str
) -> None:
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    if name != "cancel":
        ticket = (await call(queue, unit)).json()
    if name == "finish":
        await step(queue, ticket, "start")
    headers = keyed(uuid4(), officer(unit))
    assert (await step(queue, ticket, name, headers=headers)).status_code == 200
    other = await step(queue, ticket, name, headers=headers, json={"counter": 1})
    assert (other.status_code, fields_of(other)) == (422, {"Idempotency-Key"})


async def test_two_bodies_at_once_under_one_key_give_one_ticket(
    queue: httpx.AsyncClient, unit: str
) -> None:
    for _ in range(10):
        headers = keyed(uuid4())
        before = await facts(queue, unit)
        answers = await asyncio.gather(
            *(
                queue.post(
                    "/v1/tickets",
                    json={"unit": unit, "channel": "web", "series": series},
                    headers=headers,
                )
                for series in ("A", "B", "A", "B")
            )
        )
        assert sorted({answer.status_code for answer in answers}) == [201, 422]
        after = await facts(queue, unit)
        assert after["tickets"] == before["tickets"] + 1
        assert after["numbers"] == before["numbers"] + 1


async def test_another_caller_with_the_same_key_makes_a_call_of_its_own(
    queue: httpx.AsyncClient, unit: str
) -> None:
    key = uuid4()
    numbers = []
    for headers, channel in (
        ({}, "web"),
        (officer(unit, 1), "counter"),
        (officer(unit, 2), "counter"),
        (manager(unit), "counter"),
        # The same subject in another role is another caller.
        (bearer("kiosk", unit, subject=f"officer-1-of-{unit}"), "kiosk"),
    ):
        answer = await queue.post(
            "/v1/tickets", json={"unit": unit, "channel": channel}, headers=keyed(key, headers)
        )
        assert REPLAYED not in answer.headers
        numbers.append(answer.json()["number"])
    assert numbers == ["A001", "A002", "A003", "A004", "A005"]


async def test_one_key_on_two_paths_is_two_calls(queue: httpx.AsyncClient, unit: str) -> None:
    await set_counter(queue, unit)
    await take(queue, unit)
    headers = keyed("monday", officer(unit))
    called = await call(queue, unit, 1, "monday")
    for name in ("start", "finish"):
        answer = await step(queue, called.json(), name, headers=headers)
        assert answer.status_code == 200
        assert REPLAYED not in answer.headers


@pytest.mark.parametrize("key", ["1", "not-a-uuid", "x" * 255])
async def test_without_credentials_the_key_is_a_uuid(
    queue: httpx.AsyncClient, unit: str, key: str
) -> None:
    ticket = await take(queue, unit)
    for path, body in (
        ("/v1/tickets", {"unit": unit, "channel": "web"}),
        (f"/v1/tickets/{ticket['id']}/cancel", None),
    ):
        refused = await queue.post(path, json=body, headers=keyed(key))
        assert (refused.status_code, fields_of(refused)) == (422, {"Idempotency-Key"})
    wish = {"unit": unit, "channel": "counter"}
    taken = await queue.post("/v1/tickets", json=wish, headers=keyed(key, officer(unit)))
    assert taken.status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_has_1_to_255_characters(queue: httpx.AsyncClient, unit: str, key: str) -> None:
    wish = {"unit": unit, "channel": "counter"}
    refused = await queue.post("/v1/tickets", json=wish, headers=keyed(key, officer(unit)))
    assert (refused.status_code, fields_of(refused)) == (422, {"Idempotency-Key"})


# Calls that would be refused by now -----------------------------------------------------------


async def test_a_ticket_is_answered_again_though_the_centre_has_closed(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    do = await prepared(queue, unit, "issue")
    first = await do("before lunch")
    clock.at = MONDAY + timedelta(hours=4)
    again = await do("before lunch")
    assert (again.status_code, again.text) == (201, first.text)
    assert (await do("at lunch")).status_code == 409
    other = await queue.post(
        "/v1/tickets",
        json={"unit": unit, "channel": "counter", "series": "B"},
        headers=keyed("before lunch", officer(unit)),
    )
    assert (other.status_code, fields_of(other)) == (422, {"Idempotency-Key"})


@pytest.mark.parametrize("meanwhile", ["held", "started", "finished", "paused", "called-another"])
async def test_a_call_is_answered_again_whatever_has_become_of_the_counter(
    queue: httpx.AsyncClient, unit: str, meanwhile: str
) -> None:
    do = await prepared(queue, unit, "call-next")
    first = await do("call")
    ticket = first.json()
    if meanwhile in ("started", "finished", "called-another"):
        await step(queue, ticket, "start")
    if meanwhile in ("finished", "called-another"):
        await step(queue, ticket, "finish")
    if meanwhile == "called-another":
        assert (await call(queue, unit)).status_code == 200
    if meanwhile == "paused":
        await set_counter(queue, unit, 1, "paused")
    before = await facts(queue, unit)
    again = await do("call")
    assert (again.status_code, again.text) == (200, first.text)
    assert again.headers[REPLAYED] == "true"
    assert await facts(queue, unit) == before


async def test_a_call_is_answered_again_though_nobody_waits_any_more(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await set_counter(queue, unit)
    await take(queue, unit)
    first = await call(queue, unit, 1, "call")
    await step(queue, first.json(), "no-show")
    assert (await call(queue, unit)).status_code == 204
    assert (await call(queue, unit, 1, "call")).text == first.text


async def test_a_step_is_answered_again_though_the_ticket_has_gone_on(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await set_counter(queue, unit)
    await take(queue, unit)
    ticket = (await call(queue, unit)).json()
    headers = keyed("step", officer(unit))
    answers = [await step(queue, ticket, name, headers=headers) for name in ("start", "finish")]
    again = [await step(queue, ticket, name, headers=headers) for name in ("start", "finish")]
    assert [a.text for a in again] == [a.text for a in answers]
    assert again[0].json()["status"] == "serving"


# What is not kept -----------------------------------------------------------------------------


async def test_a_refused_call_keeps_nothing(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    do = await prepared(queue, unit, "issue")
    clock.at = MONDAY + timedelta(hours=4)
    assert (await do("ticket")).status_code == 409
    clock.at = MONDAY
    assert (await do("ticket")).status_code == 201
    assert (await call(queue, unit, 1, "call")).status_code == 409  # closed
    assert (await call(queue, unit, 6, "call")).status_code == 404
    ticket = await take(queue, unit)
    headers = keyed("step", officer(unit))
    assert (await step(queue, ticket, "start", headers=headers)).status_code == 409
    await set_counter(queue, unit)
    called = await call(queue, unit, 1, "call")
    assert called.status_code == 200
    started = await step(queue, called.json(), "start", headers=headers)
    assert (started.status_code, REPLAYED in started.headers) == (200, False)


async def test_nobody_waits_is_not_kept(queue: httpx.AsyncClient, unit: str) -> None:
    await set_counter(queue, unit)
    before = await facts(queue, unit)
    assert (await call(queue, unit, 1, "call")).status_code == 204
    assert await facts(queue, unit) == before
    await take(queue, unit)
    called = await call(queue, unit, 1, "call")
    assert (called.status_code, REPLAYED in called.headers) == (200, False)


async def test_without_a_key_every_call_counts(queue: httpx.AsyncClient, unit: str) -> None:
    before = await facts(queue, unit)
    numbers = [(await take(queue, unit))["number"] for _ in range(2)]
    assert numbers == ["A001", "A002"]
    assert (await facts(queue, unit))["keys"] == before["keys"]


# Between two looks ----------------------------------------------------------------------------


class Interrupted:
    """A pool during whose n-th read something else happens; all other calls pass through."""

    def __init__(self, pool: asyncpg.Pool, after: int, meanwhile: Callable[[], Any]) -> None:
        self._pool = pool
        self._after = after
        self._meanwhile = meanwhile

    async def fetchrow(self, statement: str, *values: Any) -> Any:
        """Read, and then let the other thing happen if it is time."""
        row = await self._pool.fetchrow(statement, *values)
        self._after -= 1
        if not self._after:
            await self._meanwhile()
        return row


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_call_whose_twin_commits_between_two_looks_finds_its_answer(
    queue: httpx.AsyncClient, unit: str, after: int
) -> None:
    pool = core_of(queue).db.hot
    await set_counter(queue, unit)
    await take(queue, unit)
    key = Key(uuid4().bytes, b"same")
    async with pool.acquire() as connection:
        twin = connection.transaction()
        await twin.start()
        first = await calls.call_next(connection, unit, 1, officer=unit, now=MONDAY, key=key)
        assert first is not None
        interrupted = Interrupted(pool, after, twin.commit)
        with pytest.raises(Replay) as again:
            # The statement passes over the person whom the twin holds, and looks why.
            await calls.call_next(interrupted, unit, 1, officer=unit, now=MONDAY, key=key)
    assert again.value.answer == first.body


@pytest.mark.parametrize("after", [1, 2])
async def test_a_step_whose_twin_commits_between_two_looks_finds_its_answer(
    queue: httpx.AsyncClient, unit: str, after: int
) -> None:
    pool = core_of(queue).db.hot
    await set_counter(queue, unit)
    await take(queue, unit)
    ticket = (await call(queue, unit)).json()
    who = Principal(f"officer-1-of-{unit}", "officer", frozenset({unit}))
    key = Key(uuid4().bytes, b"same")
    answers = []

    async def finish(pool: Any, key: Key | None, step: moves.Move = moves.FINISH) -> str:
        asked = moves.Asked(who, MONDAY, Rules.of(settings_for("")), key)
        return str((await moves.move(pool, UUID(ticket["id"]), step, asked))["body"])

    async def started_and_finished() -> None:
        await finish(pool, None, moves.START)
        answers.append(await finish(pool, key))

    with pytest.raises(Replay) as again:
        # The first look comes too early: the ticket has not been started yet.
        await finish(Interrupted(pool, after, started_and_finished), key)
    assert [again.value.answer] == answers

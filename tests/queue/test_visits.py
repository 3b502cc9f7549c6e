"""After the visit: the receipt, the rating, and the day's figures against the events."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from libs.contracts.intake import DossierReceived, DossierStatus
from services.queue import handlers
from services.queue.api.tickets import TicketSeen
from services.queue.api.visits import UnitDay
from services.queue.domain.endings import end_unit
from tests.queue.hall import (
    MONDAY,
    TICKETS,
    announced,
    call,
    core_of,
    keyed,
    manager,
    officer,
    seconds,
    set_counter,
    step,
    take,
)
from tests.support import FrozenClock, bearer, fields_of

CITY = bearer("city")
VISITS = "queue.visits.v1"


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


async def visit(queue: httpx.AsyncClient, unit: str, clock: FrozenClock) -> dict[str, Any]:
    """Let somebody be served from ticket to finish, in ten minutes."""
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    clock.at += seconds(120)
    await call(queue, unit)
    await step(queue, ticket, "start")
    clock.at += seconds(480)
    assert (await step(queue, ticket, "finish")).status_code == 200
    return ticket


async def rate(
    queue: httpx.AsyncClient, ticket: Mapping[str, Any], score: Any = 5, **more: Any
) -> httpx.Response:
    """Say how a visit was."""
    headers = more.pop("headers", None)
    path = f"/v1/tickets/{ticket['id']}/satisfaction"
    return await queue.post(path, json={"score": score} | more, headers=headers)


async def receive(
    queue: httpx.AsyncClient, unit: str, ticket_id: UUID | str | None, at: datetime
) -> None:
    """Hand the queue the event of a dossier that a unit has received."""
    event = DossierReceived(
        code=f"{unit}-261116-{uuid4().int % 9999:04d}",
        version=1,
        at=at,
        status=DossierStatus.received,
        procedure_code="1.001193",
        field="Hộ tịch",
        receiving_unit=unit,
        competent_unit=unit,
        channel="direct",
        boundary_independent=True,
        submitted_at=at,
        received_at=at,
        ticket_id=UUID(str(ticket_id)) if ticket_id else None,
    )
    async with core_of(queue).db.sessions.begin() as session:
        await handlers.note_receipt(event, session)


async def day_of(queue: httpx.AsyncClient, unit: str, **more: Any) -> dict[str, Any]:
    """Read the day's figures as the city's office."""
    answer = await queue.get(f"/v1/units/{unit}/day", headers=CITY, params=more)
    assert answer.status_code == 200, answer.text
    UnitDay.model_validate(answer.json())
    figures: dict[str, Any] = answer.json()
    return figures


# Ratings --------------------------------------------------------------------------------------


async def test_a_finished_visit_is_rated_once_and_only_the_score_is_announced(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    ticket = await visit(queue, unit, clock)
    rated = await rate(queue, ticket, 4, reason="Chị Lan ở quầy 1 rất tận tình")
    assert rated.status_code == 201, rated.text
    assert rated.json() == {
        "ticket_id": ticket["id"],
        "score": 4,
        "rated_at": "2026-11-16T08:10:00+07:00",
    }
    again = await rate(queue, ticket, 1)
    assert again.status_code == 409
    assert again.json()["type"] == "urn:motcua:problem:rated-before"
    shown = (await queue.get(f"/v1/tickets/{ticket['id']}")).json()
    assert (shown["score"], shown["version"]) == (4, 4)
    assert set(shown) == set(TicketSeen.model_fields)
    ((kind, event),) = await announced(queue, unit, VISITS)
    assert (kind, event["score"], event["number"]) == ("VisitRated", 4, "A001")
    everything = [await announced(queue, unit, topic) for topic in (VISITS, TICKETS)]
    assert "Lan" not in json.dumps(everything, ensure_ascii=False)
    kept = await core_of(queue).db.hot.fetchval(
        "SELECT count(*) FROM idempotency_keys WHERE answer LIKE '%Lan%'"
    )
    assert kept == 0


async def test_a_repeated_rating_answers_as_it_did_and_its_words_are_in_no_kept_answer(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    ticket = await visit(queue, unit, clock)
    key = keyed(uuid4())
    first = await rate(queue, ticket, 5, reason="Cảm ơn anh Minh", headers=key)
    second = await rate(queue, ticket, 5, reason="Cảm ơn anh Minh", headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.headers["Idempotent-Replayed"] == "true"
    other = await rate(queue, ticket, 1, headers=key)
    assert other.status_code == 422
    kept = "SELECT count(*) FROM idempotency_keys WHERE answer LIKE '%Minh%'"
    assert await core_of(queue).db.hot.fetchval(kept) == 0


async def test_a_visit_that_is_not_finished_is_not_rated(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    for name, status in ((None, "waiting"), ("call", "called"), ("start", "serving")):
        if name == "call":
            await call(queue, unit)
        elif name:
            await step(queue, ticket, name)
        refused = await rate(queue, ticket)
        assert (refused.status_code, refused.json()["ticket_status"]) == (409, status)
        assert refused.json()["type"] == "urn:motcua:problem:not-allowed-now"
    unknown = await rate(queue, {"id": uuid4()})
    assert unknown.status_code == 404


@pytest.mark.parametrize("score", [0, 6, -1, 4.5, "5", None, True, [5]])
async def test_a_score_is_a_whole_number_from_one_to_five(
    queue: httpx.AsyncClient, score: Any
) -> None:
    refused = await rate(queue, {"id": uuid4()}, score, reason=" ", mood="x")
    assert refused.status_code == 422
    assert fields_of(refused) == {"score", "reason", "mood"}


async def test_who_works_at_the_centre_does_not_rate_it(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, units: Any
) -> None:
    ticket = await visit(queue, unit, clock)
    for headers in (officer(unit), manager(unit), CITY):
        assert (await rate(queue, ticket, headers=headers)).status_code == 403
    elsewhere = bearer("kiosk", next(units))
    assert (await rate(queue, ticket, headers=elsewhere)).status_code == 403
    assert (await rate(queue, ticket, headers=bearer("kiosk", unit))).status_code == 201


async def test_the_manager_alone_reads_what_was_said_page_by_page(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, units: Any
) -> None:
    for score in (1, 3, 5):
        ticket = await visit(queue, unit, clock)
        await rate(queue, ticket, score, reason=f"điểm {score}")
    path, said, cursor = f"/v1/units/{unit}/satisfaction", [], None
    for _ in range(2):
        page = await queue.get(
            path,
            headers=manager(unit),
            params={"limit": 2} | ({"cursor": cursor} if cursor else {}),
        )
        said += page.json()["items"]
        cursor = page.json()["next_cursor"]
    assert cursor is None
    assert sorted((row["number"], row["score"], row["reason"]) for row in said) == [
        ("A001", 1, "điểm 1"),
        ("A002", 3, "điểm 3"),
        ("A003", 5, "điểm 5"),
    ]
    for headers in (officer(unit), CITY, manager(next(units))):
        assert (await queue.get(path, headers=headers)).status_code == 403
    assert (await queue.get(path)).status_code == 401
    bad = await queue.get(path, headers=manager(unit), params={"cursor": "x"})
    assert (bad.status_code, fields_of(bad)) == (422, {"cursor"})


# Receipts -------------------------------------------------------------------------------------


async def test_the_first_receipt_of_a_visit_is_the_second_measure(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    ticket = await visit(queue, unit, clock)
    for after in (540, 560):
        await receive(queue, unit, ticket["id"], MONDAY + seconds(after))
    shown = (await queue.get(f"/v1/tickets/{ticket['id']}")).json()
    assert shown["receipt_seconds"] == 540
    ((kind, event),) = await announced(queue, unit, VISITS)
    assert (kind, event["receipt_seconds"], event["number"]) == ("ReceiptPrinted", 540, "A001")
    assert datetime.fromisoformat(event["at"]) == MONDAY + seconds(540)


async def test_a_receipt_that_names_no_ticket_of_its_unit_says_nothing(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, units: Any
) -> None:
    ticket = await visit(queue, unit, clock)
    await receive(queue, next(units), ticket["id"], clock.at)
    await receive(queue, unit, uuid4(), clock.at)
    await receive(queue, unit, None, clock.at)
    shown = (await queue.get(f"/v1/tickets/{ticket['id']}")).json()
    assert shown["receipt_seconds"] is None
    assert (await day_of(queue, unit))["centre"]["receipts"] == 0


# The day --------------------------------------------------------------------------------------


async def test_a_units_staff_and_the_city_read_its_day(
    queue: httpx.AsyncClient, unit: str, units: Any
) -> None:
    path = f"/v1/units/{unit}/day"
    for headers in (officer(unit), manager(unit), CITY):
        assert (await queue.get(path, headers=headers)).status_code == 200
    assert (await queue.get(path, headers=officer(next(units)))).status_code == 403
    assert (await queue.get(path)).status_code == 401
    wrong = await queue.get(path, headers=CITY, params={"date": "2026-02-30"})
    assert (wrong.status_code, fields_of(wrong)) == (422, {"date"})
    assert (await queue.get("/v1/units/H29.1/day", headers=CITY)).status_code == 404


async def test_a_day_is_the_business_day_of_its_tickets(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await visit(queue, unit, clock)
    clock.at = MONDAY + timedelta(days=1)
    await take(queue, unit)
    assert (await day_of(queue, unit, date="2026-11-16"))["centre"]["finished"] == 1
    today = await day_of(queue, unit)
    assert (today["date"], today["centre"]["waiting"]) == ("2026-11-17", 1)
    assert (await day_of(queue, unit, date="2026-11-18"))["counters"] == []


async def test_who_waits_longer_than_promised_counts_before_anybody_calls(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await take(queue, unit)
    for after, beyond, share in ((1200, 0, None), (1201, 1, 0)):
        clock.at = MONDAY + seconds(after)
        centre = (await day_of(queue, unit))["centre"]
        assert (centre["uncalled_beyond_sla"], centre["share_within_sla"]) == (beyond, share)


_STATUS = {
    "TicketIssued": "waiting",
    "TicketCalled": "called",
    "TicketStarted": "serving",
    "TicketParked": "parked",
    "TicketReturned": "waiting",
    "TicketReissued": "waiting",
    "TicketFinished": "finished",
    "TicketNoShow": "no_show",
    "TicketCancelled": "cancelled",
}
_STATES = ("finished", "no_show", "cancelled", "transferred", "waiting", "parked")
_ENDED = ("finished", "no_show", "cancelled", "transferred")


class Ledger:
    """The day's figures as somebody counts them who has only the events."""

    def __init__(
        self, events: Iterable[tuple[str, dict[str, Any]]], day: str, at: datetime
    ) -> None:
        tickets: dict[str, dict[str, Any]] = defaultdict(dict)
        for kind, body in events:
            self._note(tickets[body["ticket_id"]], kind, body)
        self.cohort = [ticket for ticket in tickets.values() if ticket["business_day"] == day]
        self.at = at

    def _note(self, ticket: dict[str, Any], kind: str, body: dict[str, Any]) -> None:
        moment = datetime.fromisoformat(body["at"])
        if kind == "ReceiptPrinted":
            ticket["receipt"] = body["receipt_seconds"]
        elif kind == "VisitRated":
            ticket["score"] = body["score"]
        else:
            status = _STATUS.get(kind)
            if kind == "TicketTransferred":
                status = "transferred" if body.get("to_unit") else "waiting"
            ticket |= {"status": status, "ended": moment if status in _ENDED else None}
        if kind == "TicketIssued":
            ticket |= {name: body[name] for name in ("business_day", "transferred_from")}
            ticket["issued"] = moment
        elif kind == "TicketCalled" and body["first_call"]:
            ticket["wait"] = body["wait_seconds"]
        elif kind in ("TicketFinished", "TicketNoShow"):
            ticket |= {"counter": body["counter"], "service": body.get("service_seconds")}

    def figures(self) -> dict[str, Any]:
        """Count the centre's figures."""
        waits = [t["wait"] for t in self.cohort if "wait" in t]
        beyond = sum(
            ((t.get("ended") or self.at) - t["issued"]).total_seconds() > 1200
            for t in self.cohort
            if "wait" not in t
        )
        receipts = [t["receipt"] for t in self.cohort if "receipt" in t]
        states = [t["status"] for t in self.cohort]
        within, decided = sum(wait <= 1200 for wait in waits), len(waits) + beyond
        return {
            "tickets": sum(t["transferred_from"] is None for t in self.cohort),
            "transferred_in": sum(t["transferred_from"] is not None for t in self.cohort),
            "called": len(waits),
            **{name: states.count(name) for name in _STATES},
            "at_counters": states.count("called") + states.count("serving"),
            "within_sla": within,
            "uncalled_beyond_sla": beyond,
            "share_within_sla": within / decided if decided else None,
            **_ranks("wait", waits),
            **_served(self.cohort),
            "receipts": len(receipts),
            **_ranks("receipt", receipts),
            **_rated(self.cohort),
        }

    def counters(self) -> list[dict[str, Any]]:
        """Count the figures of each counter."""
        by_counter = defaultdict(list)
        for ticket in self.cohort:
            if ticket["status"] in ("finished", "no_show"):
                by_counter[ticket["counter"]].append(ticket)
        return [
            {
                "number": number,
                "finished": sum(t["status"] == "finished" for t in ended),
                "no_show": sum(t["status"] == "no_show" for t in ended),
                **_served(ended),
                **_rated(ended),
            }
            for number, ended in sorted(by_counter.items())
        ]


def _ranks(name: str, times: list[float]) -> dict[str, Any]:
    ascending = sorted(times)

    def rank(percent: int) -> float | None:
        return ascending[-(-percent * len(times) // 100) - 1] if times else None

    return {
        f"{name}_p50_seconds": rank(50),
        f"{name}_p95_seconds": rank(95),
        f"{name}_max_seconds": rank(100),
    }


def _served(tickets: list[dict[str, Any]]) -> dict[str, Any]:
    times = [t["service"] for t in tickets if t["status"] == "finished"]
    mean = fmean(times) if times else None
    return {"service_seconds": sum(times), "service_mean_seconds": mean}


def _rated(tickets: list[dict[str, Any]]) -> dict[str, Any]:
    scores = [t["score"] for t in tickets if "score" in t]
    return {"rated": len(scores), "score_mean": fmean(scores) if scores else None}


def _summed(row: dict[str, Any]) -> dict[str, Any]:
    """Forgive what adding the same numbers in another order does to their last digit."""
    return {
        name: pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
        for name, value in row.items()
    }


class Players:
    """People and officers of two centres who do whatever comes into their heads."""

    def __init__(
        self, queue: httpx.AsyncClient, clock: FrozenClock, places: list[str], seed: int
    ) -> None:
        self.queue, self.clock, self.places = queue, clock, places
        self.dice = random.Random(seed)  # noqa: S311  (the same play each time)
        self.tickets: list[dict[str, Any]] = []

    async def play(self, moves: int) -> None:
        """Make so many moves, of which many are refused; no two people come at one instant, so
        that the same play takes the same course."""
        for unit in self.places:
            for number in (1, 2, 3):
                await set_counter(self.queue, unit, number)
        for _ in range(moves):
            self.clock.at += timedelta(seconds=self.dice.choice([0.001, 1, 7.25, 60, 150.125]))
            await self._move()

    async def _move(self) -> None:
        dice, queue = self.dice, self.queue
        unit, desk = dice.choice(self.places), dice.choice((1, 2, 3))
        if dice.random() < 0.3 or not self.tickets:
            channel = dice.choice(["web", "counter"])
            headers = {} if channel == "web" else officer(unit, 9)
            wish = {"unit": unit, "channel": channel}
            answer = await queue.post("/v1/tickets", json=wish, headers=headers)
            if answer.status_code == 201:
                self.tickets.append(answer.json())
            return
        if dice.random() < 0.4:
            await self._call(unit, desk)
            return
        ticket = dice.choice(self.tickets[-12:])
        name = dice.choice(
            ["start", "finish", "no-show", "park", "return", "cancel", "rate", "receipt", "receipt",
             "transfer", "transfer", "recall", "printed", "reissue", "call"]
        )  # fmt: skip
        await self._do(name, ticket, dice.choice(self.places))

    async def _call(self, unit: str, desk: int) -> None:
        """Call somebody to a counter, and serve whoever comes, or nobody does, or time goes by."""
        called = await call(self.queue, unit, desk)
        if called.status_code == 409:  # it still holds somebody
            path = f"/v1/units/{unit}/counters/{desk}/hand-back"
            await self.queue.post(path, headers=manager(unit))
        if called.status_code != 200:
            return
        ticket, ending = called.json(), self.dice.choice(["finish", "finish", "no-show", ""])
        for name in ("start", ending) if ending == "finish" else (ending,) if ending else ():
            self.clock.at += timedelta(seconds=self.dice.choice([1.5, 90.125]))
            await step(self.queue, ticket, name, desk)
        if ending == "finish" and self.dice.random() < 0.5:
            await rate(self.queue, ticket, self.dice.randint(1, 5))

    async def _do(self, name: str, ticket: dict[str, Any], elsewhere: str) -> None:
        headers = manager(ticket["unit"])
        bodies: dict[str, Any] = {
            "transfer": {"unit": elsewhere} if elsewhere != ticket["unit"] else {"series": "B"},
            "printed": {"ok": self.dice.random() < 0.5},
            "call": {"counter": self.dice.choice((1, 2, 3)), "reason": "ốm"},
        }
        if name == "rate":
            await rate(self.queue, ticket, self.dice.randint(1, 5))
        elif name == "receipt":
            await receive(self.queue, ticket["unit"], ticket["id"], self.clock.at)
        else:
            path = f"/v1/tickets/{ticket['id']}/{name}"
            answer = await self.queue.post(path, json=bodies.get(name), headers=headers)
            if answer.is_success and answer.json().get("linked_ticket"):
                self.tickets.append(answer.json()["linked_ticket"])


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_days_figures_are_those_of_the_events(
    queue: httpx.AsyncClient, clock: FrozenClock, units: Any, seed: int
) -> None:
    places = [next(units), next(units)]
    players = Players(queue, clock, places, seed)
    await players.play(200)
    if seed == 3:  # one centre is closed for good with people in it
        async with core_of(queue).db.sessions.begin() as session:
            await end_unit(session, places[1], at=clock.at)
    seen: dict[str, int] = defaultdict(int)
    for unit in places:
        events = await announced(queue, unit) + await announced(queue, unit, VISITS)
        ledger = Ledger(events, "2026-11-16", clock.at)
        told = await day_of(queue, unit, date="2026-11-16")
        assert told["centre"] == _summed(ledger.figures())
        assert told["counters"] == [_summed(row) for row in ledger.counters()]
        centre = told["centre"]
        states = sum(centre[name] for name in (*_STATES, "at_counters"))
        assert centre["tickets"] + centre["transferred_in"] == states
        for name, value in centre.items():
            seen[name] += bool(value)
    # A play in which nothing of a kind happens proves nothing of it.
    wanted = (*_ENDED, "receipts", "rated", "uncalled_beyond_sla", "transferred_in")
    assert [name for name in wanted if not seen[name]] == []

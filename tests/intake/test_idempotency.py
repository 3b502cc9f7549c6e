"""The same call twice, and many at once."""

import asyncio
from uuid import uuid4

import httpx

from tests.intake.city import HERE, OFFICER, draft, rows, step, submit, taken


def _keyed() -> dict[str, str]:
    return OFFICER | {"Idempotency-Key": str(uuid4())}


async def test_a_repeated_submission_is_one_dossier(
    intake: httpx.AsyncClient, city_url: str
) -> None:
    headers = _keyed()
    first = await submit(intake, headers)
    again = await submit(intake, headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(await rows(city_url, "SELECT FROM dossiers")) == 1
    other = await submit(intake, headers, channel="postal")
    assert other.status_code == 422


async def test_twins_in_flight_are_one_dossier(intake: httpx.AsyncClient, city_url: str) -> None:
    headers = _keyed()
    twins = await asyncio.gather(*(submit(intake, headers) for _ in range(4)))
    assert {twin.status_code for twin in twins} == {201}
    assert len({twin.json()["code"] for twin in twins}) == 1
    assert sum("Idempotent-Replayed" in twin.headers for twin in twins) == 3
    assert len(await rows(city_url, "SELECT FROM dossiers")) == 1
    assert (await taken(intake))["code"].endswith("-0002")


async def test_a_repeated_step_answers_as_it_did_although_it_would_now_be_refused(
    intake: httpx.AsyncClient,
) -> None:
    code = (await taken(intake))["code"]
    await step(intake, code, "assign")
    headers = _keyed()
    first = await step(intake, code, "complete", headers)
    again = await step(intake, code, "complete", headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert (await step(intake, code, "complete")).status_code == 409


async def test_one_of_two_officers_completes_and_the_other_is_refused(
    intake: httpx.AsyncClient,
) -> None:
    code = (await taken(intake))["code"]
    await step(intake, code, "assign")
    both = await asyncio.gather(*(step(intake, code, "complete") for _ in range(2)))
    assert sorted(answer.status_code for answer in both) == [200, 409]


async def test_a_refused_submission_spends_no_number(intake: httpx.AsyncClient) -> None:
    headers = _keyed()
    assert (await submit(intake, headers, components=[{"component_code": "KQ1"}])).is_error
    assert (await submit(intake, headers)).json()["code"] == f"{HERE}-261109-0001"


async def test_32_creators_at_once_leave_no_gap_and_no_duplicate(
    intake: httpx.AsyncClient,
) -> None:
    async def creator(number: int) -> list[str]:
        codes = []
        for turn in range(4):
            papers = [{"component_code": "KQ1"}] if (number + turn) % 4 == 0 else []
            body = draft(components=papers)
            answer = await intake.post("/v1/dossiers", json=body, headers=_keyed())
            assert answer.status_code == (422 if papers else 201), answer.text
            codes += [] if papers else [answer.json()["code"]]
        return codes

    made = await asyncio.gather(*(creator(number) for number in range(32)))
    codes = sorted(code for some in made for code in some)
    assert codes == [f"{HERE}-261109-{number:04d}" for number in range(1, 97)]

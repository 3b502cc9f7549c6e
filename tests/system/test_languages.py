"""Vietnamese and English through the door of the whole city, whichever service refuses."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.embedded import city
from tests.support import bearer, settings_for

HERE, THERE = "H29.26740", "H29.26743"
NIGHT = datetime.fromisoformat("2026-11-16T23:00+07:00")
OFFICER = bearer("officer", HERE)
MANAGER = bearer("manager", HERE)


@pytest.fixture
async def door(city_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run the whole city in process, at night, when centres are closed."""
    clock = f"{NIGHT.isoformat()},x1,{datetime.now().astimezone().timestamp():.0f}"
    async with city(settings_for(city_url, clock=clock, hours="official")) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://motcua") as client:
            while (await client.get("/readyz")).status_code != 200:
                pass
            yield client


REFUSED: dict[str, tuple[str, str, dict[str, str], Any, int, str, str]] = {
    "the queue: closed": (
        "POST", "/v1/tickets", {}, {"unit": HERE, "channel": "web"}, 409,
        f"{HERE} is closed; it opens at 2026-11-17T07:30:00+07:00",
        f"{HERE} đang đóng cửa; sẽ mở cửa lúc 07:30 ngày 17/11/2026",
    ),
    "the queue: not a counter": (
        "POST", f"/v1/units/{HERE}/counters/77/call-next", OFFICER, None, 404,
        f"{HERE} has no counter 77",
        f"{HERE} không có quầy 77",
    ),
    "the registry: not a unit": (
        "GET", "/v1/units/H29.99999", {}, None, 404,
        "no unit has the code H29.99999",
        "không có đơn vị nào mang mã H29.99999",
    ),
    "intake: not a telephone number": (
        "POST", "/v1/dossiers", OFFICER,
        {
            "procedure_code": "2.000815", "receiving_unit": HERE, "channel": "direct",
            "applicant": {"kind": "citizen", "name": "Trần Thị Bình", "phone": "12"},
        },
        422,
        "1 value(s) to mend: applicant.phone",
        "có 1 giá trị cần sửa: applicant.phone",
    ),
    "reporting: not a week": (
        "GET", f"/v1/reports/weekly/2027-W53?unit={HERE}", MANAGER, None, 422,
        "1 value(s) to mend: week",
        "có 1 giá trị cần sửa: week",
    ),
    "the table of roles": (
        "GET", f"/v1/units/{THERE}/tickets", OFFICER, None, 403,
        f"{THERE} is not among your units",
        f"{THERE} không thuộc các đơn vị của bạn",
    ),
}  # fmt: skip


async def test_every_service_refuses_in_the_language_asked_for(door: httpx.AsyncClient) -> None:
    for name, (method, path, who, body, status, english, vietnamese) in REFUSED.items():
        # The key is the same: what is kept with one is an effect, never a refusal in some language.
        key = {"Idempotency-Key": str(uuid4())}
        for asked, language, detail in (
            ({}, "en", english),
            ({"Accept-Language": "vi-VN,vi;q=0.9,en;q=0.8"}, "vi", vietnamese),
            ({"Accept-Language": "en-GB,en;q=0.9,vi;q=0.1"}, "en", english),
        ):
            answer = await door.request(method, path, json=body, headers=who | key | asked)
            assert (answer.status_code, answer.json()["detail"]) == (status, detail), name
            assert answer.headers["content-language"] == language, name
            assert answer.headers["vary"] == "Accept-Language", name


async def test_a_bad_field_is_explained_in_the_services_own_words(door: httpx.AsyncClient) -> None:
    method, path, who, body, *_ = REFUSED["intake: not a telephone number"]
    answer = await door.request(method, path, json=body, headers=who | {"Accept-Language": "vi"})
    assert answer.json()["errors"] == [
        {
            "field": "applicant.phone",
            "message": (
                "không phải số điện thoại Việt Nam: gồm 10 hoặc 11 chữ số, bắt đầu bằng số 0"
            ),
        }
    ]


async def test_a_kept_answer_is_the_same_in_any_language(door: httpx.AsyncClient) -> None:
    dossier = {
        "procedure_code": "2.000815", "receiving_unit": HERE, "channel": "direct",
        "components": [], "applicant": {"kind": "citizen", "name": "Trần Thị Bình"},
    }  # fmt: skip
    key = OFFICER | {"Idempotency-Key": str(uuid4())}
    answers = [
        await door.post("/v1/dossiers", json=dossier, headers=key | {"Accept-Language": language})
        for language in ("vi", "en")
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].text == answers[1].text
    assert not any("content-language" in answer.headers for answer in answers)

"""What the routing rule says to people: why, what instead, what nobody knows; in both languages."""

from datetime import date, datetime
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.words import said
from libs.contracts.registry import CalendarDayChanged
from services.gateway.directory import City
from services.gateway.reasons import Answer, explain
from services.gateway.routing import Alternative, Elsewhere
from tests.gateway.city import (
    ASKED,
    NOT_TERRITORIAL,
    TERRITORIAL,
    answer,
    ask,
    change,
    feed,
    record,
)
from tests.gateway.test_routing import (
    FAR_AWAY,
    HERE,
    NEXT_DOOR,
    PROMISE,
    SPLIT,
    Spot,
    at,
)
from tests.support import FrozenClock

VIETNAMESE = {"Accept-Language": "vi-VN,vi;q=0.9,en;q=0.8"}


def spot(wait: int | None, age: int | None = 0, *, opened: bool = True) -> Spot:
    """Give the centre that somebody asks for."""
    return Spot("U01", forecast_seconds=wait, load_age_seconds=age, open=opened)


def other(wait: int | None, km: float | None = 2.34, age: int | None = 0) -> Alternative:
    """Give a centre to go to instead."""
    return Alternative("U02", km, wait, 600, age)


def why(
    centre: Spot, instead: Elsewhere | None = None, *, competent: str = "U01", **more: Any
) -> Answer:
    """Give what the rule found."""
    return Answer(centre, PROMISE, competent, instead or Elsewhere(), **more)


OPENS = datetime.fromisoformat("2026-11-17T07:30:00+07:00")
OPEN = "Bến Thành is open and receives"
MO_CUA = "Bến Thành đang mở cửa và tiếp nhận hồ sơ"
LONG = "Bến Thành receives, but the wait is about {} minutes, over the promised 20 minutes"
CHO_LAU = "Bến Thành vẫn tiếp nhận nhưng phải chờ khoảng {} phút, quá mức cam kết 20 phút"
NONE = "no other centre is known to be open and under the promise"
KHONG = "chưa biết trung tâm nào khác đang mở cửa và chờ không quá mức cam kết"
FIRST = "1 other centre(s) are open, first Tân Định at 2.3 km, but {}"
TRUOC_HET = "có 1 trung tâm khác đang mở cửa, trước hết là Tân Định cách 2,3 km, nhưng {}"
FIRST_FAST = (
    "1 other centre(s) are open and under the promise, "
    "first Tân Định, where the wait is about 1 minute"
)
TRUOC_HET_NHANH = (
    "có 1 trung tâm khác đang mở cửa và chờ không quá mức cam kết, "
    "trước hết là Tân Định, thời gian chờ khoảng 1 phút"
)
LAU_ROI = "tin gần nhất về thời gian chờ ở đó đã cách đây {}"
QUOC_GIA = "hồ sơ được giải quyết trên hệ thống quốc gia của bộ"

REASONS: dict[str, tuple[Answer, list[str], list[str]]] = {
    "a short wait": (
        why(spot(240)),
        [OPEN, "the wait is about 4 minutes"],
        [MO_CUA, "thời gian chờ khoảng 4 phút"],
    ),
    "no wait at all": (
        why(spot(0), distance_km=0.04),
        [OPEN, "nobody has to wait", "it is right where you are"],
        [MO_CUA, "không phải chờ", "ngay tại nơi bạn đang ở"],
    ),
    "a wait of the promise itself": (
        why(spot(PROMISE)),
        [OPEN, "the wait is about 20 minutes"],
        [MO_CUA, "thời gian chờ khoảng 20 phút"],
    ),
    "a second more is told as a minute more": (
        why(spot(PROMISE + 1), Elsewhere([other(60, None)])),
        [
            LONG.format(21),
            FIRST_FAST,
        ],
        [
            CHO_LAU.format(21),
            TRUOC_HET_NHANH,
        ],
    ),
    "nobody can help": (
        why(spot(3000)), [LONG.format(50), NONE], [CHO_LAU.format(50), KHONG],
    ),
    "others were left out, the latest of them heard of long ago": (
        why(spot(3000), Elsewhere([], 2, 95)),
        [
            LONG.format(50), NONE,
            "2 more are open, but their waits were last known 95 s ago",
        ],
        [
            CHO_LAU.format(50), KHONG,
            "2 trung tâm nữa đang mở cửa, nhưng " + LAU_ROI.format("95 giây"),
        ],
    ),
    "closed": (
        why(spot(0, opened=False), opens_at=OPENS),
        ["Bến Thành is closed now", "it opens at 2026-11-17T07:30:00+07:00", NONE],
        ["Bến Thành đang đóng cửa", "sẽ mở cửa lúc 07:30 ngày 17/11/2026", KHONG],
    ),
    "closed, nobody knows until when, and the bus is away": (
        why(spot(0, opened=False), Elsewhere([other(None, age=600)])),
        ["Bến Thành is closed now", FIRST.format("their waits were last known 10 minutes ago")],
        [
            "Bến Thành đang đóng cửa",
            TRUOC_HET.format(LAU_ROI.format("10 phút")),
        ],
    ),
    "closed, and nothing was ever told": (
        why(spot(0, opened=False), Elsewhere([other(None, age=None)])),
        ["Bến Thành is closed now", FIRST.format("nothing has been heard of their queues yet")],
        ["Bến Thành đang đóng cửa", TRUOC_HET.format("chưa có tin về hàng chờ ở đó")],
    ),
    "a stale load": (
        why(spot(None, 95)),
        [OPEN, "its wait was last known 95 s ago, so it is unknown now"],
        [
            MO_CUA,
            LAU_ROI.format("95 giây") + " nên hiện chưa biết phải chờ bao lâu",
        ],
    ),
    "a load that never came": (
        why(spot(None, None)),
        [OPEN, "nothing has been heard of its queue yet, so the wait is unknown"],
        [MO_CUA, "chưa có tin về hàng chờ ở đó nên chưa biết thời gian chờ"],
    ),
    "no counter open": (
        why(spot(None)),
        [OPEN, "no counter is open there yet, so the wait is unknown"],
        [MO_CUA, "chưa có quầy nào mở nên chưa biết thời gian chờ"],
    ),
    "a position was given": (
        why(spot(60), distance_km=2.04),
        [OPEN, "the wait is about 1 minute", "it is 2.0 km from you, about 8 minutes"],
        [MO_CUA, "thời gian chờ khoảng 1 phút", "cách bạn 2,0 km, đi khoảng 8 phút"],
    ),
    "another unit decides": (
        why(spot(60), competent="U02"),
        [OPEN, "the wait is about 1 minute", "Tân Định decides"],
        [MO_CUA, "thời gian chờ khoảng 1 phút", "Tân Định giải quyết hồ sơ"],
    ),
    "a ministry decides": (
        why(spot(60), competent="national"),
        [OPEN, "the wait is about 1 minute", "the ministry's national system decides"],
        [MO_CUA, "thời gian chờ khoảng 1 phút", QUOC_GIA],
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", REASONS)
def test_the_answer_explains_itself_in_one_sentence(line: str) -> None:
    found, english, vietnamese = REASONS[line]
    reason = explain(found, {"U01": "Bến Thành", "U02": "Tân Định"}.__getitem__)
    assert reason == "; ".join(english)
    assert said(reason, "vi") == "; ".join(vietnamese)


# Hours ------------------------------------------------------------------------------------------

NEW_YEAR = "2027-01-01T09:00:00"


@pytest.mark.parametrize(
    ("now", "override", "opens"),
    [
        (NEW_YEAR, None, "2027-01-04T07:30:00+07:00"),
        ("2026-11-17T09:00:00", ("2026-11-17", "off"), "2026-11-18T07:30:00+07:00"),
        ("2026-11-21T09:00:00", ("2026-11-21", "work"), None),
        ("2026-11-21T12:00:00", ("2026-11-21", "work"), "2026-11-21T13:00:00+07:00"),
    ],
    ids=["a holiday", "a day declared off", "a Saturday to be worked", "at its noon"],
)
async def test_holidays_and_declared_days_close_and_open_the_doors(
    gateway: httpx.AsyncClient, city: City, clock: FrozenClock,
    now: str, override: tuple[str, str] | None, opens: str | None,
) -> None:  # fmt: skip
    clock.at = at(now)
    if override is not None:
        day, kind = override
        declared = CalendarDayChanged(
            day=date.fromisoformat(day), version=1, kind=kind, decision="1/QĐ"
        )
        city.registry.take(record(declared))
    receiving = (await answer(gateway, at_unit=ASKED))["receiving"]
    assert receiving["opens_at"] == opens
    assert receiving["open"] is (opens is None)


async def test_a_door_is_looked_at_anew_when_its_time_comes_and_when_its_hours_change(
    gateway: httpx.AsyncClient, city: City, clock: FrozenClock
) -> None:
    seen = []
    for time in (
        "07:29:59",
        "07:30:00",
        "11:29:59",
        "11:30:00",
        "13:00:00",
        "17:00:00",
        "09:00:00",
    ):
        clock.at = at(f"2026-11-16T{time}")
        seen.append((await answer(gateway, at_unit=ASKED))["receiving"]["open"])
    assert seen == [False, True, True, False, True, False, True]
    hours = city.registry.centres[ASKED].hours.model_copy(update={"monday": ()})
    change(city, city.registry.centres[ASKED], hours=hours)
    assert (await answer(gateway, at_unit=ASKED))["receiving"]["open"] is False


# The way, and who decides -----------------------------------------------------------------------


async def test_with_a_position_the_way_is_told(gateway: httpx.AsyncClient, city: City) -> None:
    feed(city, ASKED, 60)
    a_kilometre_north = HERE | {"latitude": HERE["latitude"] + 0.009}
    routed = await answer(gateway, at_unit=ASKED, position=a_kilometre_north)
    assert routed["receiving"]["distance_km"] == 1.0
    assert routed["receiving"]["travel_seconds"] == 234
    assert routed["reason"].endswith("; it is 1.0 km from you, about 4 minutes")
    routed = await answer(gateway, at_unit=FAR_AWAY, position=HERE)
    assert routed["receiving"]["distance_km"] > 100


async def test_who_decides_is_told_where_it_is_another_unit(
    gateway: httpx.AsyncClient, city: City
) -> None:
    routed = await answer(
        gateway, procedure_code=TERRITORIAL, at_unit=ASKED, subject_unit=NEXT_DOOR
    )
    assert routed["reason"].endswith(f"; {city.registry.units[NEXT_DOOR].name} decides")
    routed = await answer(gateway, procedure_code=TERRITORIAL, at_unit=ASKED, subject_unit=ASKED)
    assert "decides" not in routed["reason"]


# Residence --------------------------------------------------------------------------------------

UNITS = ("H29.26740", "H29.26743", "H29.26732", "H29.26758", "H29.27595", "H29.C01.27595")
anywhere = st.fixed_dictionaries(
    {"latitude": st.floats(-90, 90), "longitude": st.floats(-180, 180)}
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    asked=st.sampled_from(UNITS),
    subject=st.none() | st.sampled_from(UNITS),
    position=st.none() | anywhere,
    home=st.sampled_from(["residence", "home_unit", "permanent_address", "id_number"]),
    procedure=st.sampled_from([TERRITORIAL, NOT_TERRITORIAL]),
)
async def test_wherever_somebody_lives_or_comes_from_every_centre_receives(
    gateway: httpx.AsyncClient, city: City, asked: str, subject: str | None,
    position: dict[str, float] | None, home: str, procedure: str,
) -> None:  # fmt: skip
    """The centre asked for receives; where the subject lies decides and moves nothing."""
    question = {"procedure_code": procedure, "at_unit": asked, "position": position}
    plain = await ask(gateway, **question, subject_unit=ASKED)
    routed = await ask(gateway, **question, subject_unit=subject)
    resident = await ask(gateway, **question, subject_unit=subject, **{home: FAR_AWAY})
    assert resident.status_code == 422, "there is no field to say where somebody lives"
    expected = city.registry.current(asked).code
    assert plain.json()["receiving"]["unit"] == expected
    if procedure == TERRITORIAL and subject is None:
        assert routed.status_code == 422
        return
    told, other_told = routed.json(), plain.json()
    decides = city.registry.current(subject or asked).code if procedure == TERRITORIAL else expected
    assert told.pop("competent_unit") == decides
    for answered in (told, other_told):
        answered.pop("reason")
    other_told.pop("competent_unit")
    assert told == other_told


# Languages --------------------------------------------------------------------------------------


async def test_the_reason_is_told_in_the_language_asked_for(
    gateway: httpx.AsyncClient, city: City
) -> None:
    feed(city, ASKED, 240)
    question = {"procedure_code": NOT_TERRITORIAL, "at_unit": ASKED}
    english = await gateway.post("/v1/route", json=question)
    vietnamese = await gateway.post("/v1/route", json=question, headers=VIETNAMESE)
    assert english.json()["reason"].endswith("is open and receives; the wait is about 4 minutes")
    assert english.headers["content-language"] == "en"
    assert vietnamese.json()["reason"].endswith("; thời gian chờ khoảng 4 phút")
    assert vietnamese.headers["content-language"] == "vi"
    assert {answer.headers["vary"] for answer in (english, vietnamese)} == {"Accept-Language"}
    assert english.json() | {"reason": ""} == vietnamese.json() | {"reason": ""}


async def test_a_split_code_asks_in_vietnamese_too(gateway: httpx.AsyncClient) -> None:
    question = {"procedure_code": NOT_TERRITORIAL, "at_unit": SPLIT}
    asked = await gateway.post("/v1/route", json=question, headers=VIETNAMESE)
    assert asked.json()["reason"] == (
        f"{SPLIT} đã được chia tách; hãy chọn một trong các đơn vị kế thừa"
    )


async def test_what_the_door_and_the_route_refuse_is_said_in_vietnamese(
    gateway: httpx.AsyncClient,
) -> None:
    tricked = await gateway.get("/v1/units/%2e%2e/x", headers=VIETNAMESE)
    assert tricked.json()["title"] == "Đường dẫn có thể hiểu theo nhiều cách."
    away = await gateway.get("/v1/units", headers=VIETNAMESE)
    assert away.status_code == 503
    assert away.json()["detail"] == "dịch vụ registry không trả lời"
    assert away.headers["content-language"] == "vi"
    nobody = await gateway.post(
        "/v1/route", json={"procedure_code": "x", "where": 1}, headers=VIETNAMESE
    )
    messages = {entry["field"]: entry["message"] for entry in nobody.json()["errors"]}
    assert messages["procedure_code"] == (
        "không phải mã thủ tục hành chính: hãy viết theo mẫu 1.001193"
    )
    assert messages["where"] == "không có mục nào tên như vậy ở đây"

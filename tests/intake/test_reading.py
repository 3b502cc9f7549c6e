"""Who reads what: lists, single dossiers, the citizen's view."""

from typing import Any

import httpx
import pytest
from sqlalchemy import event

from tests.intake.city import (
    CITY,
    HERE,
    MARITAL,
    OFFICER,
    OFFICER_THERE,
    PERSON,
    PERSONAL,
    PORTAL,
    SHA,
    THERE,
    change_procedure,
    directory_of,
    on,
    step,
    submit,
    taken,
)
from tests.support import FrozenClock, bearer, fields_of


async def _codes(
    intake: httpx.AsyncClient, headers: dict[str, str] = OFFICER, **params: Any
) -> list[str]:
    answer = await intake.get("/v1/dossiers", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    return [item["code"] for item in answer.json()["items"]]


async def test_who_may_hand_in_follows_role_unit_and_channel(intake: httpx.AsyncClient) -> None:
    manager = bearer("manager", HERE)
    for headers, changes, status in (
        ({}, {}, 401),
        ({"Authorization": "Bearer nonsense"}, {}, 401),
        (CITY, {}, 403),
        (bearer("kiosk", HERE), {}, 403),
        (bearer("ops"), {}, 403),
        (OFFICER, {"receiving_unit": THERE}, 403),
        (OFFICER, {"receiving_unit": "gso:25747"}, 403),
        (OFFICER, {"receiving_unit": "H29.99999"}, 404),
        (OFFICER, {"receiving_unit": "gso:99999"}, 404),
        (OFFICER, {"receiving_unit": "gso:26740"}, 201),
        (manager, {"channel": "postal"}, 201),
        (manager, {"channel": "online"}, 201),
        (OFFICER_THERE, {"channel": "online"}, 403),
        (PORTAL, {"channel": "online"}, 201),
        (PORTAL, {"channel": "direct"}, 403),
    ):
        answer = await submit(intake, headers, **changes)
        assert answer.status_code == status, (headers, changes, answer.text)


async def test_the_applicant_is_shown_to_staff_of_both_units_and_to_nobody_else(
    intake: httpx.AsyncClient,
) -> None:
    dossier = await taken(
        intake, procedure_code=MARITAL, subject_unit=THERE,
        components=[], ticket_id="3f0c9d1e-0f4e-4a53-9f6c-0d7a4a1f0b11",
    )  # fmt: skip
    await step(intake, dossier["code"], "assign", OFFICER_THERE, {"note": PERSONAL[0]})
    for address in (f"/v1/dossiers/{dossier['code']}", f"/v1/dossiers/{dossier['code']}/history"):
        for headers, status in (
            ({}, 401), (bearer("officer", "H29.26743"), 403), (PORTAL, 403),
            (bearer("ops"), 403), (bearer("kiosk", HERE), 403), (CITY, 200),
            (OFFICER, 200), (bearer("manager", THERE), 200),
        ):  # fmt: skip
            assert (await intake.get(address, headers=headers)).status_code == status, headers
        city = (await intake.get(address, headers=CITY)).text
        for personal in (*PERSONAL, "minh", "lan", "3f0c9d1e"):
            assert personal not in city
    shown = (await intake.get(f"/v1/dossiers/{dossier['code']}", headers=OFFICER_THERE)).json()
    assert shown["applicant"] == PERSON | {
        "id": shown["applicant"]["id"], "phone": "0901234567", "tax_number": None,
    }  # fmt: skip
    seen = (await intake.get(f"/v1/dossiers/{dossier['code']}", headers=CITY)).json()
    assert seen["applicant"] is None


async def test_an_unknown_dossier_is_404_and_eight_digit_days_are_understood(
    intake: httpx.AsyncClient,
) -> None:
    await taken(intake)
    for code, status in (
        (f"{HERE}-20261109-0001", 200),
        (f"{HERE}-261109-0002", 404),
        (f"{HERE}-269999-0002", 422),
        ("H29", 422),
    ):
        answer = await intake.get(f"/v1/dossiers/{code}", headers=OFFICER)
        assert answer.status_code == status, code


async def test_a_list_holds_what_a_unit_received_or_decides_newest_first(
    intake: httpx.AsyncClient, clock: FrozenClock
) -> None:
    own = (await taken(intake))["code"]
    clock.at = on(9, 10)
    elsewhere = (
        await taken(intake, procedure_code=MARITAL, subject_unit=THERE, components=[])
    )["code"]  # fmt: skip
    clock.at = on(10)
    online = (await taken(intake, PORTAL, channel="online", receiving_unit=THERE))["code"]
    await step(intake, own, "assign")
    assert await _codes(intake) == [elsewhere, own]
    assert await _codes(intake, OFFICER_THERE) == [online, elsewhere]
    assert await _codes(intake, CITY) == [online, elsewhere, own]
    assert await _codes(intake, CITY, unit=f"gso:{HERE[4:]}") == [elsewhere, own]
    assert await _codes(intake, CITY, status=1) == [online]
    assert await _codes(intake, CITY, status=[1, 4]) == [online, own]
    assert await _codes(intake, CITY, **{"from": "2026-11-10"}) == [online]
    assert await _codes(intake, CITY, to="2026-11-09") == [elsewhere, own]
    assert await _codes(intake, CITY, **{"from": "2026-11-09", "to": "2026-11-09", "status": 4}) \
        == [own]  # fmt: skip
    assert await _codes(intake, bearer("officer")) == []


async def test_lists_show_nothing_personal_and_keep_to_the_callers_units(
    intake: httpx.AsyncClient,
) -> None:
    await taken(intake)
    for headers in (CITY, OFFICER):
        text = (await intake.get("/v1/dossiers", headers=headers)).text
        assert not any(personal in text for personal in PERSONAL)
    for headers, unit, status in (
        ({}, HERE, 401), (PORTAL, HERE, 403), (bearer("ops"), HERE, 403), (OFFICER, THERE, 403),
        (OFFICER, "H29.99999", 404), (CITY, "H29.99999", 404), (OFFICER, HERE, 200),
        (CITY, THERE, 200),
    ):  # fmt: skip
        answer = await intake.get("/v1/dossiers", params={"unit": unit}, headers=headers)
        assert answer.status_code == status, (headers, unit)


async def test_a_list_comes_in_pages_that_lose_and_repeat_nothing(
    intake: httpx.AsyncClient, clock: FrozenClock
) -> None:
    made = []
    for minute in (0, 0, 1, 2, 2):
        clock.at = on(9, 9, minute)
        made.append((await taken(intake))["code"])
    for headers in (OFFICER, CITY):
        found, cursor = [], None
        while True:
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await intake.get("/v1/dossiers", params=params, headers=headers)).json()
            found += [item["code"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert found == made[::-1]


async def test_a_malformed_filter_is_named(intake: httpx.AsyncClient) -> None:
    for params, field in (
        ({"limit": 201}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "9" * 40 + "-x"}, "cursor"),
        ({"status": 11}, "status.0"),
        ({"from": "9.11.2026"}, "from"),
        ({"from": "2026-11-10", "to": "2026-11-09"}, "to"),
        ({"overdue": "perhaps"}, "overdue"),
    ):
        answer = await intake.get("/v1/dossiers", params=params, headers=OFFICER)
        assert (answer.status_code, fields_of(answer)) == (422, {field}), params
    far = {"from": "0001-01-01", "to": "9999-12-31"}
    assert (await intake.get("/v1/dossiers", params=far, headers=OFFICER)).status_code == 200


async def test_a_dossier_is_overdue_after_the_local_day_of_its_appointment(
    intake: httpx.AsyncClient, clock: FrozenClock
) -> None:
    late = (await taken(intake))["code"]
    waiting = (await taken(intake, channel="online"))["code"]
    clock.at = on(12, 23, 59)
    assert await _codes(intake, overdue=True) == []
    clock.at = on(13, 0, 0)
    assert await _codes(intake, overdue=True) == [late]
    assert await _codes(intake, overdue=False) == [waiting]
    shown = await intake.get(f"/v1/dossiers/{late}", headers=OFFICER)
    assert shown.json()["overdue"]
    await step(intake, late, "assign")
    await step(intake, late, "complete")
    assert await _codes(intake, overdue=True) == []


async def test_a_list_costs_the_same_number_of_statements_however_long_it_is(
    intake: httpx.AsyncClient,
) -> None:
    statements: list[str] = []
    engine = intake.state["core"].db.sessions.kw["bind"].sync_engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    counts = []
    for more in (1, 6):
        for _ in range(more):
            await taken(intake)
        statements.clear()
        assert len(await _codes(intake)) == len(await _codes(intake, CITY))
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 4


async def test_dossiers_of_a_closed_unit_belong_to_its_successor_under_its_code(
    intake: httpx.AsyncClient,
) -> None:
    code = (await taken(intake))["code"]
    directory = directory_of(intake)
    former = next(
        unit for unit in directory.units.values()
        if unit.type == "former" and [h.code for h in directory.heirs(unit)] == [THERE]
    )  # fmt: skip
    directory.units[HERE] = former.model_copy(update={"code": HERE, "version": 99})
    assert (await intake.get(f"/v1/dossiers/{code}", headers=OFFICER)).status_code == 403
    shown = (await intake.get(f"/v1/dossiers/{code}", headers=OFFICER_THERE)).json()
    assert (shown["code"], shown["receiving_unit"], shown["competent_unit"]) == (
        code, THERE, THERE,
    )  # fmt: skip
    assert await _codes(intake, OFFICER_THERE) == [code]
    assert await _codes(intake, CITY, unit=HERE) == [code]
    assert (await step(intake, code, "assign", OFFICER_THERE)).status_code == 200


# Tracking -------------------------------------------------------------------------------------


async def _track(intake: httpx.AsyncClient, code: str, last4: str) -> httpx.Response:
    return await intake.get(f"/v1/track/{code}", params={"phone_last4": last4})


async def test_a_citizen_follows_a_dossier_and_sees_nothing_personal(
    intake: httpx.AsyncClient,
) -> None:
    code = (await taken(intake, components=[]))["code"]
    await step(intake, code, "assign", body={"note": PERSONAL[0]})
    answer = await _track(intake, code, "4567")
    view = answer.json()
    assert answer.status_code == 200
    assert (view["status"], view["appointment_at"]) == (4, "2026-11-12T09:00:00+07:00")
    assert [one["action"] for one in view["steps"]] == ["receive", "assign"]
    assert len(view["missing_components"]) == 1
    assert not any(personal in answer.text for personal in (*PERSONAL, "lan", SHA))


async def test_a_wrong_number_and_an_unknown_code_answer_alike(intake: httpx.AsyncClient) -> None:
    code = (await taken(intake))["code"]
    wrong = await _track(intake, code, "0000")
    unknown = await _track(intake, f"{HERE}-261109-0002", "4567")
    assert wrong.status_code == unknown.status_code == 404
    assert {k: v for k, v in wrong.json().items() if k != "trace_id"} == {
        k: v for k, v in unknown.json().items() if k != "trace_id"
    }
    for bad in ("456", "45678", "abcd", "４５６７"):
        assert fields_of(await _track(intake, code, bad)) == {"phone_last4"}
    missing = await intake.get(f"/v1/track/{code}")
    assert fields_of(missing) == {"phone_last4"}


@pytest.mark.parametrize(
    ("applicant", "last4"),
    [
        ({"kind": "citizen", "name": "Hoà", "id_number": "079190012345"}, "2345"),
        ({"kind": "organisation", "name": "Hoà", "tax_number": "0314409058-002"}, "8002"),
        ({"kind": "citizen", "name": "Hoà"}, None),
    ],
)
async def test_without_a_phone_the_id_or_tax_number_stands_in(
    intake: httpx.AsyncClient, applicant: dict[str, str], last4: str | None
) -> None:
    code = (await taken(intake, applicant=applicant))["code"]
    if last4 is None:
        assert (await _track(intake, code, "0000")).status_code == 404
    else:
        assert (await _track(intake, code, last4)).status_code == 200


async def test_rules_replaced_in_the_catalogue_do_not_change_what_is_shown(
    intake: httpx.AsyncClient,
) -> None:
    dossier = await taken(intake)
    change_procedure(intake, dossier["procedure_code"], name="Thủ tục mới")
    assert (await _track(intake, dossier["code"], "4567")).json()["procedure_name"] == (
        dossier["procedure_name"]
    )

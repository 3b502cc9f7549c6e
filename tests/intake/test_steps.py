"""A dossier's way from status to status, its control slip, and what the database enforces."""

import asyncpg
import httpx
import pytest

from libs.common.db import service_url
from libs.contracts.intake import DossierStatus
from services.intake.domain import TRANSITIONS, allowed
from tests.intake.city import (
    CITY,
    HERE,
    MARITAL,
    OFFICER,
    OFFICER_THERE,
    PERSONAL,
    PORTAL,
    SHA,
    THERE,
    on,
    rows,
    step,
    taken,
)
from tests.support import FrozenClock, bearer, settings_for

ALLOWED = {
    DossierStatus.submitted: ["receive"],
    DossierStatus.received: ["assign"],
    DossierStatus.processing: ["assign", "complete"],
    DossierStatus.processed: ["return"],
}


def test_the_table_of_steps_says_what_a_status_allows() -> None:
    assert {status: allowed(status) for status in DossierStatus} == {
        status: ALLOWED.get(status, []) for status in DossierStatus
    }


async def test_a_dossier_goes_its_way_and_every_step_is_dated(
    intake: httpx.AsyncClient, clock: FrozenClock
) -> None:
    code = (await taken(intake))["code"]
    clock.at = on(9, 11)
    assigned = (await step(intake, code, "assign", body={"assignee": "hung"})).json()
    assert (assigned["status"], assigned["holder"]) == (4, "hung")
    clock.at = on(10)
    completed = (await step(intake, code, "complete", body={"files": [SHA]})).json()
    assert (completed["status"], completed["result_files"]) == (9, 1)
    assert completed["ended_at"] == "2026-11-10T09:00:00+07:00"
    clock.at = on(11)
    returned = (await step(intake, code, "return", body={"note": "by hand"})).json()
    assert (returned["status"], returned["version"], returned["allowed"]) == (10, 4, [])
    assert returned["ended_at"] == "2026-11-10T09:00:00+07:00"
    assert returned["returned_at"] == "2026-11-11T09:00:00+07:00"
    assert returned["holder_unit"] is None


async def test_a_forbidden_step_is_refused_with_those_that_are_allowed(
    intake: httpx.AsyncClient, city_url: str
) -> None:
    code = (await taken(intake))["code"]
    for status in DossierStatus:
        for name in TRANSITIONS:
            await rows(
                city_url,
                "UPDATE dossiers SET status = $1::int, ended_at = received_at, "
                "returned_at = CASE WHEN $1::int = 10 THEN received_at END",
                status.value,
            )
            answer = await step(intake, code, name)
            expected = 200 if name in allowed(status) else 409
            assert answer.status_code == expected, (status, name, answer.text)
            if expected == 409:
                problem = answer.json()
                assert problem["type"] == "urn:motcua:problem:forbidden-transition"
                assert problem["allowed"] == allowed(status)
                assert problem["dossier_status"] == status.value


async def test_each_step_belongs_to_the_staff_of_one_unit(
    intake: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """Received here, decided there, handed over here: nobody else, whatever the role."""
    waiting = await taken(
        intake, PORTAL, procedure_code=MARITAL, subject_unit=THERE, components=[],
        channel="online",
    )  # fmt: skip
    code = waiting["code"]
    stranger = bearer("manager", "H29.26743")
    everybody = {"here": OFFICER, "there": OFFICER_THERE, "stranger": stranger, "city": CITY}
    for name, who in (
        ("receive", "here"),
        ("assign", "there"),
        ("complete", "there"),
        ("return", "here"),
    ):
        for other in everybody.keys() - {who} - ({"there"} if name == "return" else set()):
            answer = await step(intake, code, name, everybody[other])
            assert answer.status_code == 403, (name, other)
        assert (await step(intake, code, name, {})).status_code == 401
        assert (await step(intake, code, name, PORTAL)).status_code == 403
        assert (await step(intake, code, name, everybody[who])).status_code == 200, name
    assert (await step(intake, f"{HERE}-261109-0042", "assign")).status_code == 404
    assert (await step(intake, "H29", "assign")).status_code == 422


async def test_the_control_slip_tells_giver_receiver_time_and_state(
    intake: httpx.AsyncClient, clock: FrozenClock
) -> None:
    dossier = await taken(intake, procedure_code=MARITAL, subject_unit=THERE, components=[])
    code = dossier["code"]
    clock.at = on(9, 14)
    await step(intake, code, "assign", OFFICER_THERE, {"assignee": "hung", "note": "urgent"})
    await step(intake, code, "assign", OFFICER_THERE)
    await step(intake, code, "complete", OFFICER_THERE, {"reason": "done"})
    await step(intake, code, "return", OFFICER, {"files": [SHA]})
    answer = await intake.get(f"/v1/dossiers/{code}/history", headers=OFFICER)
    lines = answer.json()["items"]
    assert [(line["version"], line["action"], line["status"]) for line in lines] == [
        (1, "receive", 2), (2, "assign", 4), (3, "assign", 4), (4, "complete", 9),
        (5, "return", 10),
    ]  # fmt: skip
    hands = [
        tuple((line[side]["unit"], line[side]["person"]) for side in ("giver", "receiver"))
        for line in lines
    ]
    assert hands == [
        ((None, None), (HERE, "lan")),
        ((HERE, "lan"), (THERE, "hung")),
        ((THERE, "hung"), (THERE, "minh")),
        ((THERE, "minh"), (HERE, None)),
        ((HERE, "lan"), (None, None)),
    ]
    assert [line["by"] for line in lines] == ["lan", "minh", "minh", "minh", "lan"]
    assert (lines[1]["note"], lines[3]["reason"], lines[4]["files"]) == ("urgent", "done", [SHA])
    assert lines[1]["at"] == "2026-11-09T14:00:00+07:00"


async def test_the_control_slip_comes_in_pages(intake: httpx.AsyncClient) -> None:
    code = (await taken(intake))["code"]
    await step(intake, code, "assign")
    address = f"/v1/dossiers/{code}/history"
    first = (await intake.get(address, params={"limit": 1}, headers=OFFICER)).json()
    assert [line["version"] for line in first["items"]] == [1]
    rest = await intake.get(address, params={"cursor": first["next_cursor"]}, headers=OFFICER)
    assert [line["version"] for line in rest.json()["items"]] == [2]
    assert rest.json()["next_cursor"] is None


async def test_history_and_rules_are_append_only_for_the_service_too(
    intake: httpx.AsyncClient, city_url: str
) -> None:
    await taken(intake)
    connection = await asyncpg.connect(service_url(settings_for(city_url), "intake"))
    try:
        assert await connection.fetchval("SELECT count(*) FROM hand_overs") == 1
        for table in ("hand_overs", "procedure_rules"):
            for statement in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        for change in ("hand_overs SET note = 'x'", "procedure_rules SET procedure_code = 'x'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"UPDATE {change}")
    finally:
        await connection.close()


async def test_a_note_stays_on_the_slip(intake: httpx.AsyncClient, city_url: str) -> None:
    code = (await taken(intake))["code"]
    answer = await step(intake, code, "assign", body={"note": f"call {PERSONAL[0]}"})
    assert PERSONAL[0] not in answer.text
    bad = await step(intake, code, "complete", body={"notes": PERSONAL[0], "files": [PERSONAL[1]]})
    assert bad.status_code == 422
    assert PERSONAL[0] not in bad.text
    assert PERSONAL[1] not in bad.text

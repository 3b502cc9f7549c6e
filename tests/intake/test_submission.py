"""Handing dossiers in: channels, competence, codes, papers, and what is refused."""

from datetime import datetime
from typing import Any

import httpx

from libs.common.worktime import OpeningHours
from tests.intake.city import (
    BUSINESS,
    COPIES,
    FORM,
    HERE,
    LICENCE,
    MARITAL,
    OTHER_PAPER,
    PERSON,
    PERSONAL,
    POLICE,
    PORTAL,
    SHA,
    THERE,
    a_ministrys,
    change_procedure,
    directory_of,
    let_offer,
    on,
    rows,
    step,
    submit,
    taken,
)
from tests.support import FrozenClock, bearer, fields_of


async def test_a_dossier_handed_in_at_a_counter_is_received_at_once(
    intake: httpx.AsyncClient,
) -> None:
    dossier = await taken(intake, ticket_id="3f0c9d1e-0f4e-4a53-9f6c-0d7a4a1f0b11")
    assert dossier["code"] == f"{HERE}-261109-0001"
    assert (dossier["status"], dossier["status_name"]) == (2, "received")
    assert dossier["receiving_unit"] == dossier["competent_unit"] == HERE
    assert dossier["submitted_at"] == dossier["received_at"] == "2026-11-09T09:00:00+07:00"
    assert dossier["appointment_at"] == "2026-11-12T09:00:00+07:00"
    assert dossier["missing_components"] == []
    assert dossier["allowed"] == ["assign"]
    assert "applicant" not in dossier


async def test_a_dossier_that_came_by_post_is_received_by_who_opens_the_letter(
    intake: httpx.AsyncClient,
) -> None:
    dossier = await taken(intake, channel="postal")
    assert (dossier["status"], dossier["channel"]) == (2, "postal")


async def test_an_online_dossier_has_its_code_and_waits_to_be_received(
    intake: httpx.AsyncClient, clock: FrozenClock
) -> None:
    waiting = await taken(intake, PORTAL, channel="online")
    assert waiting["code"] == f"{HERE}-261109-0001"
    assert waiting["status"] == 1
    assert waiting["received_at"] is waiting["appointment_at"] is None
    assert waiting["reception_due_at"] == "2026-11-10T09:00:00+07:00"
    clock.at = on(10, 14)
    received = (await step(intake, waiting["code"], "receive")).json()
    assert (received["status"], received["version"]) == (2, 2)
    assert received["submitted_at"] == "2026-11-09T09:00:00+07:00"
    assert received["received_at"] == "2026-11-10T14:00:00+07:00"
    assert received["appointment_at"] == "2026-11-13T14:00:00+07:00"


async def test_the_sequence_counts_per_competent_unit_and_local_day(
    intake: httpx.AsyncClient, clock: FrozenClock
) -> None:
    there = bearer("officer", HERE, THERE)
    clock.at = on(9, 23, 59)
    first = [await taken(intake), await taken(intake, there, receiving_unit=THERE)]
    clock.at = on(10, 0, 0)
    second = [await taken(intake), await taken(intake)]
    assert [dossier["code"] for dossier in first + second] == [
        f"{HERE}-261109-0001",
        f"{THERE}-261109-0001",
        f"{HERE}-261110-0001",
        f"{HERE}-261110-0002",
    ]


async def test_past_9999_the_sequence_grows_a_digit(
    intake: httpx.AsyncClient, city_url: str
) -> None:
    await taken(intake)
    await rows(city_url, "UPDATE dossier_sequences SET last = 9999")
    assert (await taken(intake))["code"] == f"{HERE}-261109-10000"


async def test_a_territorial_procedure_is_decided_where_its_subject_lies(
    intake: httpx.AsyncClient,
) -> None:
    answer = await submit(intake, procedure_code=MARITAL, components=[])
    assert (answer.status_code, fields_of(answer)) == (422, {"subject_unit"})
    dossier = await taken(
        intake, procedure_code=MARITAL, subject_unit=THERE, support_point="gso:26740",
        components=[],
    )  # fmt: skip
    assert dossier["code"] == f"{THERE}-261109-0001"
    assert dossier["receiving_unit"] == HERE
    assert dossier["competent_unit"] == dossier["subject_unit"] == THERE
    assert dossier["support_point"] == HERE
    assert dossier["boundary_independent"]


async def test_a_provinces_procedure_is_decided_by_its_department(
    intake: httpx.AsyncClient,
) -> None:
    answer = await submit(intake, procedure_code=LICENCE, components=[])
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:motcua:problem:not-offered"
    let_offer(intake, HERE, LICENCE)
    dossier = await taken(intake, procedure_code=f"{LICENCE}.000.00.00.H29", components=[])
    assert dossier["procedure_code"] == LICENCE
    assert dossier["code"] == f"{POLICE}-261109-0001"
    assert (dossier["receiving_unit"], dossier["competent_unit"]) == (HERE, POLICE)
    assert (await submit(intake, procedure_code=BUSINESS)).status_code == 409


async def test_a_department_takes_what_it_decides_itself_and_nothing_else(
    intake: httpx.AsyncClient,
) -> None:
    police = bearer("officer", POLICE)
    dossier = await taken(
        intake, police, procedure_code=LICENCE, receiving_unit=POLICE, components=[]
    )
    assert dossier["competent_unit"] == POLICE
    assert (await submit(intake, police, receiving_unit=POLICE)).status_code == 409


async def test_a_ministrys_procedure_is_not_taken_here(intake: httpx.AsyncClient) -> None:
    a_ministrys(intake, BUSINESS)
    answer = await submit(intake)
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:motcua:problem:national-procedure"


async def test_a_closed_unit_leads_to_its_successor_and_a_split_one_asks_which(
    intake: httpx.AsyncClient,
) -> None:
    directory = directory_of(intake)
    closed = [unit for unit in directory.units.values() if unit.type == "former"]
    merged = next(u for u in closed if [h.code for h in directory.heirs(u)] == [THERE])
    split = next(u for u in closed if len(directory.heirs(u)) > 1)
    dossier = await taken(intake, procedure_code=MARITAL, subject_unit=merged.code, components=[])
    assert dossier["competent_unit"] == dossier["subject_unit"] == THERE
    for field in ("subject_unit", "support_point", "receiving_unit"):
        changes: dict[str, Any] = {"subject_unit": HERE, field: split.code}
        answer = await submit(intake, procedure_code=MARITAL, components=[], **changes)
        assert answer.status_code == 409
        candidates = {candidate["unit"] for candidate in answer.json()["candidates"]}
        assert candidates == {heir.code for heir in directory.heirs(split)}


async def test_required_papers_that_are_missing_are_listed_and_block_nothing(
    intake: httpx.AsyncClient,
) -> None:
    nothing = await taken(intake, components=[])
    assert [paper["component_code"] for paper in nothing["missing_components"]] == [FORM]
    assert nothing["missing_components"][0]["name"]
    papers = [
        {"component_code": FORM, "reused_from": "CSDL quốc gia về dân cư"},
        {"component_code": OTHER_PAPER, "file_sha256": SHA},
        {"component_code": OTHER_PAPER},
    ]
    dossier = await taken(intake, components=papers)
    assert dossier["missing_components"] == []
    counts = [dossier[f"components_{kind}"] for kind in ("handed_in", "digitised", "reused")]
    assert counts == [3, 1, 1]
    assert [paper["component_code"] for paper in dossier["components"]] == [
        FORM, OTHER_PAPER, OTHER_PAPER,
    ]  # fmt: skip


async def test_a_procedure_whose_papers_nobody_listed_yet_takes_any(
    intake: httpx.AsyncClient,
) -> None:
    change_procedure(intake, BUSINESS, components=())
    dossier = await taken(intake, components=[{"component_code": "KQ1"}])
    assert dossier["components_handed_in"] == 1


async def test_every_unknown_paper_is_named_by_its_place(intake: httpx.AsyncClient) -> None:
    papers = [{"component_code": code} for code in ("KQ1", FORM, "KQ2")]
    answer = await submit(intake, components=papers)
    assert answer.status_code == 422
    assert fields_of(answer) == {"components.0.component_code", "components.2.component_code"}


async def test_a_dossier_keeps_the_rules_of_its_reception_day(
    intake: httpx.AsyncClient, city_url: str
) -> None:
    before = await taken(intake, components=[])
    waiting = await taken(intake, components=[], channel="online")
    change_procedure(intake, BUSINESS, name="Thủ tục mới", components=(), same_day=True)
    shown = await step(intake, before["code"], "assign")
    assert shown.json()["procedure_name"] == before["procedure_name"] != "Thủ tục mới"
    assert len(shown.json()["missing_components"]) == 1
    received = (await step(intake, waiting["code"], "receive")).json()
    assert (received["procedure_name"], received["missing_components"]) == ("Thủ tục mới", [])
    assert received["appointment_at"] == "2026-11-09T17:00:00+07:00"
    after = await taken(intake, components=[])
    assert after["same_day"]
    assert len(await rows(city_url, "SELECT FROM procedure_rules")) == 2


BAD_INPUTS: list[tuple[dict[str, Any], set[str]]] = [
    ({"procedure_code": "birth"}, {"procedure_code"}),
    ({"procedure_code": "9.999999"}, {"procedure_code"}),
    ({"receiving_unit": "h29"}, {"receiving_unit"}),
    ({"subject_unit": "H29.99999"}, {"subject_unit"}),
    ({"support_point": "H29.99999"}, {"support_point"}),
    ({"procedure_code": MARITAL, "components": [], "subject_unit": "H29"}, {"subject_unit"}),
    ({"channel": "fax", "extra": 1}, {"channel", "extra"}),
    ({"ticket_id": "A042"}, {"ticket_id"}),
    ({"components": [{"component_code": FORM, "file_sha256": "A" * 64}]},
     {"components.0.file_sha256"}),
    ({"components": "all"}, {"components"}),
    ({"applicant": None}, {"applicant"}),
    ({"applicant": PERSON | {"kind": "ghost", "name": " "}},
     {"applicant.kind", "applicant.name"}),
    ({"applicant": PERSON | {"id_number": "07919001234"}}, {"applicant.id_number"}),
    ({"applicant": PERSON | {"id_number": "003190012345"}}, {"applicant.id_number"}),
    ({"applicant": PERSON | {"id_number": "079227012345"}}, {"applicant.id_number"}),
    ({"applicant": PERSON | {"phone": "1022", "email": "hoa"}},
     {"applicant.phone", "applicant.email"}),
    ({"applicant": PERSON | {"tax_number": "0100233488"}}, {"applicant.tax_number"}),
    ({"applicant": {"kind": "citizen", "name": "Hoà", "tax_number": "0100233488"}},
     {"applicant.tax_number"}),
    ({"applicant": {"kind": "organisation", "name": "Hoà", "tax_number": "0100233480"}},
     {"applicant.tax_number"}),
]  # fmt: skip


async def test_each_bad_input_is_named_and_no_value_repeated(intake: httpx.AsyncClient) -> None:
    for changes, fields in BAD_INPUTS:
        answer = await submit(intake, **changes)
        assert answer.status_code == 422, (changes, answer.text)
        assert fields_of(answer) == fields
        for person in (*PERSONAL, "0100233488", "0100233480", "003190012345", "079227012345"):
            assert person not in answer.text, changes


async def test_a_unit_without_working_time_cannot_give_an_appointment(
    intake: httpx.AsyncClient,
) -> None:
    centres = directory_of(intake).centres
    centres[HERE] = centres[HERE].model_copy(update={"hours": OpeningHours()})
    for channel in ("direct", "online"):
        answer = await submit(intake, channel=channel)
        assert answer.status_code == 409
        assert answer.json()["type"] == "urn:motcua:problem:no-appointment"


# Appointments ---------------------------------------------------------------------------------


APPOINTMENTS: list[tuple[datetime, dict[str, Any], datetime]] = [
    (on(9, 10), {}, on(12, 10)),
    (on(13, 15, 30), {}, on(18, 15, 30)),
    (on(14, 10), {}, on(18, 17)),  # a Saturday counts from Monday's opening
    (on(9, 14, 59), {"procedure_code": COPIES}, on(9, 17)),
    (on(9, 15), {"procedure_code": COPIES}, on(10, 17)),
    (on(13, 15), {"procedure_code": COPIES}, on(16, 17)),
    (on(14, 9), {"procedure_code": COPIES}, on(16, 17)),
    (on(9, 15, 30), {"procedure_code": MARITAL, "subject_unit": HERE}, on(12, 15, 30)),
    (on(9, 10), {"procedure_code": MARITAL, "subject_unit": THERE}, on(12, 10)),
    (on(9, 15), {"procedure_code": MARITAL, "subject_unit": THERE}, on(12, 17)),
    (on(13, 16), {"procedure_code": MARITAL, "subject_unit": THERE}, on(18, 17)),
]


async def test_an_appointment_follows_office_hours_cut_off_and_hand_over(
    intake: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for at, changes, due in APPOINTMENTS:
        clock.at = at
        dossier = await taken(intake, components=[], **changes)
        assert dossier["appointment_at"] == due.isoformat(), (at, changes)

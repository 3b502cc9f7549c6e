"""What intake announces, and that nobody is in it."""

import asyncio
import json
from typing import Any

import httpx

from libs.common.outbox import drained
from libs.contracts.intake import DOSSIER_EVENTS, DossierEvent
from tests.intake.city import (
    BUSINESS,
    FORM,
    HERE,
    MARITAL,
    OFFICER_THERE,
    PERSONAL,
    PORTAL,
    SHA,
    THERE,
    on,
    rows,
    step,
    submit,
    taken,
)
from tests.support import FrozenClock


async def _announced(intake: httpx.AsyncClient, url: str) -> list[tuple[str, dict[str, Any], str]]:
    """Give type, data and the whole record of every dossier event on the bus."""
    database = intake.state["core"].db  # type: ignore[attr-defined]
    assert await drained(database, within=5)
    log = await rows(
        url,
        'SELECT key, value, headers FROM bus.log WHERE topic = $1 ORDER BY "offset"',
        DossierEvent.topic,
    )
    return [
        (
            json.loads(record["headers"])["ce_type"],
            json.loads(record["value"]),
            f"{record['key']} {record['headers']} {record['value'].decode()}",
        )
        for record in log
    ]


async def test_each_step_is_announced_with_the_whole_state_and_a_rising_version(
    intake: httpx.AsyncClient, clock: FrozenClock, city_url: str
) -> None:
    waiting = await taken(
        intake, PORTAL, procedure_code=MARITAL, subject_unit=THERE, channel="online",
        components=[{"component_code": "000.00.00.G15-KQ003448", "file_sha256": SHA,
                     "reused_from": "CSDL"}],
    )  # fmt: skip
    code = waiting["code"]
    clock.at = on(9, 10)
    await step(intake, code, "receive")
    for name in ("assign", "complete", "return"):
        await step(intake, code, name, OFFICER_THERE)
    events = await _announced(intake, city_url)
    assert [(kind, data["version"], data["status"]) for kind, data, _ in events] == [
        ("DossierSubmitted", 1, 1), ("DossierReceived", 2, 2), ("DossierAssigned", 3, 4),
        ("DossierCompleted", 4, 9), ("DossierReturned", 5, 10),
    ]  # fmt: skip
    assert {kind for kind, _, _ in events} == {kind.type_name() for kind in DOSSIER_EVENTS}
    last = DossierEvent.model_validate(events[-1][1])
    assert last.model_dump(include={"code", *STATE}) == STATE | {"code": code}
    assert last.field == "Hộ tịch"


STATE = {
    "version": 5, "status": 10, "procedure_code": MARITAL, "receiving_unit": HERE,
    "competent_unit": THERE, "channel": "online", "boundary_independent": True,
    "submitted_at": on(9), "received_at": on(9, 10), "appointment_at": on(12, 10),
    "ended_at": on(9, 10), "returned_at": on(9, 10), "supplement_requests": 0, "components": 1,
    "components_digitised": 1, "components_reused": 1,
}  # fmt: skip
"""What the last event of the test above says; fields that are added later do not fail it."""


async def test_a_dossier_received_at_the_counter_is_announced_once(
    intake: httpx.AsyncClient, city_url: str
) -> None:
    await taken(intake)
    ((kind, data, _),) = await _announced(intake, city_url)
    assert (kind, data["version"]) == ("DossierReceived", 1)
    assert data["received_at"] == data["submitted_at"] == data["at"]
    assert (data["procedure_code"], data["components"]) == (BUSINESS, 1)


async def test_nothing_personal_leaves_the_applicants_table_but_on_the_slip(
    intake: httpx.AsyncClient, city_url: str
) -> None:
    key = {"Idempotency-Key": "a-key"}
    headers = OFFICER_THERE | key
    dossier = await taken(intake, headers, receiving_unit=THERE)
    for name in ("assign", "complete", "return"):
        await step(intake, dossier["code"], name, headers, {"note": f"for {PERSONAL[0]}"})
    await submit(intake, receiving_unit=THERE, components=[{"component_code": FORM}])
    events = await _announced(intake, city_url)
    assert len(events) == 4
    tables = ("dossiers", "dossier_components", "procedure_rules", "idempotency_keys", "outbox")
    stored = [
        str(row) for table in tables for row in await rows(city_url, f"SELECT * FROM {table}")
    ]
    kept = await rows(city_url, "SELECT answer FROM idempotency_keys")
    assert len(kept) == 4
    for text in [record for *_, record in events] + stored:
        for personal in PERSONAL:
            assert personal not in text


async def test_steps_of_many_dossiers_at_once_keep_each_ones_order(
    intake: httpx.AsyncClient, city_url: str
) -> None:
    made = [await taken(intake) for _ in range(6)]

    async def through(code: str) -> None:
        for name in ("assign", "complete", "return"):
            assert (await step(intake, code, name)).status_code == 200

    await asyncio.gather(*(through(dossier["code"]) for dossier in made))
    versions: dict[str, list[int]] = {}
    for _, data, _ in await _announced(intake, city_url):
        versions.setdefault(data["code"], []).append(data["version"])
    assert list(versions.values()) == [[1, 2, 3, 4]] * 6

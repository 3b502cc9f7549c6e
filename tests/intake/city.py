"""What intake's tests share: units, procedures and papers of the seeded city, calls and looks."""

from datetime import datetime
from typing import Any

import asyncpg
import httpx

from libs.common.worktime import ZONE
from libs.contracts.directory import Directory
from libs.contracts.registry import Level, ProcedureChanged
from tests.support import bearer

HERE = "H29.26740"
THERE = "H29.25747"
POLICE = "H29.S06"
BUSINESS = "1.001612"
"""Registers a household business: commune, not territorial, 3 working days."""
FORM = "000.00.00.G12-KQ014016"
"""Its one required paper."""
OTHER_PAPER = "000.00.00.G12-KQ014017"
MARITAL = "1.004873"
"""Confirms marital status: commune, territorial, 3 working days."""
COPIES = "2.000815"
"""Certifies copies: commune, not territorial, same day."""
LICENCE = "3.000347"
"""Issues a driving licence: province, decided by the city police, 5 working days."""
SHA = "a" * 64

OFFICER = bearer("officer", HERE, subject="lan")
OFFICER_THERE = bearer("officer", THERE, subject="minh")
CITY = bearer("city")
PORTAL = bearer("portal")

PERSON = {
    "kind": "citizen",
    "name": "Nguyễn Thị Hoà",
    "id_number": "079190012345",
    "phone": "+84 901 234 567",
    "email": "hoa.nguyen@example.vn",
    "representative": "Trần Văn Đại Diện",
}
PERSONAL = ("Nguyễn Thị Hoà", "079190012345", "901234567", "hoa.nguyen", "Trần Văn Đại Diện")
"""What must be found nowhere but in `applicants`."""


def on(day: int, hour: int = 9, minute: int = 0) -> datetime:
    """Give a local instant of November 2026; the 9th is a Monday."""
    return datetime(2026, 11, day, hour, minute, tzinfo=ZONE)


def draft(**changes: Any) -> dict[str, Any]:
    """Write a dossier for the counter of `HERE`."""
    return {
        "procedure_code": BUSINESS,
        "receiving_unit": HERE,
        "channel": "direct",
        "applicant": PERSON,
        "components": [{"component_code": FORM, "file_sha256": SHA}],
    } | changes


async def submit(
    intake: httpx.AsyncClient, headers: dict[str, str] = OFFICER, **changes: Any
) -> httpx.Response:
    """Hand a dossier in."""
    return await intake.post("/v1/dossiers", json=draft(**changes), headers=headers)


async def taken(
    intake: httpx.AsyncClient, headers: dict[str, str] = OFFICER, **changes: Any
) -> dict[str, Any]:
    """Hand a dossier in that is taken."""
    answer = await submit(intake, headers, **changes)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def step(
    intake: httpx.AsyncClient,
    code: str,
    name: str,
    headers: dict[str, str] = OFFICER,
    body: dict[str, Any] | None = None,
) -> httpx.Response:
    """Take a step with a dossier."""
    return await intake.post(f"/v1/dossiers/{code}/{name}", json=body, headers=headers)


def directory_of(intake: httpx.AsyncClient) -> Directory:
    """Give what the service knows of the registry, for a test to change."""
    directory: Directory = intake.state["directory"]  # type: ignore[attr-defined]
    return directory


def let_offer(intake: httpx.AsyncClient, unit: str, *procedures: str) -> None:
    """Make a centre offer just these procedures."""
    centres = directory_of(intake).centres
    centres[unit] = centres[unit].model_copy(update={"procedures": procedures})


def change_procedure(intake: httpx.AsyncClient, code: str, **changes: Any) -> None:
    """Replace what is in force of a procedure."""
    known = directory_of(intake).procedures
    newest = known[code].versions[-1].model_copy(update=changes)
    known[code] = ProcedureChanged(code=code, version=99, versions=(newest,))


def a_ministrys(intake: httpx.AsyncClient, code: str) -> None:
    """Hand a procedure over to a ministry."""
    change_procedure(intake, code, competent_level=Level.ministry)


async def rows(url: str, query: str, *values: Any) -> list[asyncpg.Record]:
    """Ask the test's database as its administrator, in intake's schema."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "intake"})
    try:
        found: list[asyncpg.Record] = await connection.fetch(query, *values)
        return found
    finally:
        await connection.close()

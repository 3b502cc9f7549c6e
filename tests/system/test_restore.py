"""A city is dumped while it works, its server is lost, and another goes on with what was dumped."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.migrate import SCHEMAS
from libs.common.postgres import EmbeddedPostgres, find_binaries
from services.embedded import city
from tests.cli.command import invoke
from tests.common.helpers import admin, eventually
from tests.support import bearer, on_database, reachable_folder, settings_for
from tests.system.city import APPLICANT, PROCEDURE, UNIT, key

OFFICER = bearer("officer", UNIT)

pytestmark = pytest.mark.system


@asynccontextmanager
async def running(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run the whole city of this process on a database."""
    async with (
        city(settings_for(url)) as whole,
        httpx.AsyncClient(transport=httpx.ASGITransport(whole), base_url="http://motcua") as client,
    ):

        async def ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await eventually(ready, 30)
        yield client


async def post(client: httpx.AsyncClient, path: str, body: Any = None, **headers: str) -> Any:
    """Post as an officer; give the answer's body."""
    answer = await client.post(path, json=body, headers=OFFICER | key() | headers)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def take_ticket(client: httpx.AsyncClient, **headers: str) -> Any:
    """Take a ticket as a citizen would."""
    answer = await client.post(
        "/v1/tickets", json={"unit": UNIT, "channel": "web"}, headers=key() | headers
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def submit(client: httpx.AsyncClient) -> Any:
    """Hand a dossier in at the counter."""
    dossier = {"procedure_code": PROCEDURE, "receiving_unit": UNIT, "channel": "direct",
               "applicant": APPLICANT, "components": []}  # fmt: skip
    return await post(client, "/v1/dossiers", dossier)


async def figures(client: httpx.AsyncClient) -> Any:
    """Read the running week's report of the unit, which is made from events alone."""
    now = (await client.get("/version")).json()["clock"]["now"][:10]
    week = await client.get(
        "/v1/reports/weekly/" + _week_of(now), params={"unit": UNIT}, headers=bearer("city")
    )
    assert week.status_code == 200, week.text
    return week.json()["city"]


def _week_of(day: str) -> str:
    """Name the week that runs on a day: by the Friday on which its report is due."""
    friday = date.fromisoformat(day) + timedelta(days=1)
    while friday.isoweekday() != 5:
        friday += timedelta(days=1)
    return f"{friday:%G-W%V}"


async def contents(connection: Any) -> dict[str, tuple[int, str]]:
    """Give the number of rows of every table of the city, and their hash."""
    tables = await connection.fetch(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY($1)", list(SCHEMAS)
    )
    found = {}
    for schema, table in tables:
        rows = await connection.fetch(f"SELECT t::text AS row FROM {schema}.{table} t ORDER BY 1")
        written = "\n".join(row["row"] for row in rows)
        found[f"{schema}.{table}"] = (len(rows), hashlib.sha256(written.encode()).hexdigest())
    return found


async def tool(name: str, *words: str | Path) -> None:
    """Run one of PostgreSQL's programs."""
    process = await asyncio.create_subprocess_exec(
        find_binaries(None).folder / name,
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def dump(url: str, path: Path) -> dict[str, tuple[int, str]]:
    """Dump a database that is in use; give what stood in it at that same instant."""
    async with admin(url) as connection, connection.transaction(isolation="repeatable_read"):
        snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
        then = await contents(connection)
        await tool("pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--file={path}", url)
    return then


async def restore(path: Path, url: str) -> None:
    """Bring a dump to a server that knows nothing of us, as docs/backup.md says."""
    assert (await invoke("migrate", "--roles-only", url=url)).status == 0
    await tool("pg_restore", "--exit-on-error", "--single-transaction", f"--dbname={url}", path)
    assert (await invoke("migrate", url=url)).status == 0


async def test_a_city_that_was_lost_goes_on_from_its_dump(city_url: str, tmp_path: Path) -> None:
    path = tmp_path / "city.dump"
    once = key()
    async with running(city_url) as client:
        opened = await client.put(
            f"/v1/units/{UNIT}/counters/1", json={"state": "open"}, headers=OFFICER
        )
        assert opened.status_code == 200
        tickets = [await take_ticket(client, **once), await take_ticket(client)]
        called = await post(client, f"/v1/units/{UNIT}/counters/1/call-next")
        dossiers = [await submit(client), await submit(client)]
        counted = await eventually(_counts(client, tickets=2, received=2))
        then = await dump(city_url, path)
        await take_ticket(client)  # nobody will know of this one: it came after the dump

    with reachable_folder() as folder, EmbeddedPostgres(folder) as server:
        url = on_database(server.url, "restored")
        async with admin(server.url) as connection:
            await connection.execute("CREATE DATABASE restored")
        await restore(path, url)
        async with admin(url) as connection:
            assert await contents(connection) == then
        async with running(url) as client:
            assert await figures(client) == counted
            assert (await take_ticket(client, **once))["id"] == tickets[0]["id"]
            numbers = [ticket["number"] for ticket in tickets]
            numbers.append((await take_ticket(client))["number"])
            assert numbers == ["A001", "A002", "A003"]
            codes = [one["code"] for one in (*dossiers, await submit(client))]
            assert [code[-4:] for code in codes] == ["0001", "0002", "0003"]
            await post(client, f"/v1/tickets/{called['id']}/start")
            await eventually(_counts(client, tickets=3, received=3))
            told = (await invoke("lag", "--above", "0", "--json", url=url)).json["items"]
            assert {item["behind"] for item in told} == {0}
            again = await client.get(f"/v1/dossiers/{dossiers[0]['code']}", headers=OFFICER)
            assert again.json()["applicant"]["name"] == APPLICANT["name"]


def _counts(client: httpx.AsyncClient, *, tickets: int, received: int) -> Any:
    async def read() -> Any:
        told = await figures(client)
        there = (told["queue"]["tickets"], told["received"]["direct"]) == (tickets, received)
        return told if there else None

    return read

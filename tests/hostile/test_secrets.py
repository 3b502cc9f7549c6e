"""What must stay between the citizen and the centre: traffic full of it, with faults on the way,
and then everything that others read is searched for it."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest

from libs.common.db import service_password
from libs.common.settings import SERVICES
from tests.support import reachable_folder
from tests.system.city import PROCEDURE, UNIT, City, embedded

pytestmark = pytest.mark.system

PEOPLE: Final = {
    "name": "Bùi Kín Đáo",
    "id_number": "079190001234",
    "phone": "0938765432",
    "email": "kin.dao.079@example.vn",
}
ORGANISATION: Final = {
    "name": "Hợp tác xã Kín Như Bưng",
    "tax_number": "0100109106",
    "representative": "Phan Thị Giấu",
}
WORDS: Final = "Chị Giấu nói: nhà ở hẻm 48 đường Bí Mật, gọi 0938765432"
"""What people write where they may write anything."""

OWN_WORDS: Final = {*PEOPLE.values(), *ORGANISATION.values(), WORDS, "hẻm 48"}

KEYS_BEGIN: Final = "5ec2e7ed-"
"""Idempotency keys are UUIDs for who has no credentials; all of them begin so."""

WORKERS: Final = 4


class Secrets:
    """What was sent or is held, and must be found nowhere."""

    def __init__(self, city: City, url: str) -> None:
        """Begin with what the processes hold."""
        password = urlsplit(url).password or ""
        keys = [path.read_text("ascii").splitlines()[1] for path in (city.data / "keys").iterdir()]
        self.known: set[str] = {
            *OWN_WORDS,
            KEYS_BEGIN,
            *keys,
            *(service_password(password, service) for service in SERVICES),
        } | ({password} if password else set())

    def keep(self, word: str) -> str:
        """Remember a word that was sent."""
        self.known.add(word)
        return word

    def found_in(self, text: str) -> set[str]:
        """Give those that a text holds, also as JSON writes them."""
        return {word for word in self.known if word in text or json.dumps(word).strip('"') in text}


class Citizens:
    """Plays visits by the dozen; what is answered is no matter as long as nothing is told."""

    def __init__(self, city: City, client: httpx.AsyncClient, secrets: Secrets) -> None:
        """Call a city."""
        self._client = client
        self._secrets = secrets
        self.statuses: list[int] = []
        self.officer = self._shown(city, "officer")
        self.manager = self._shown(city, "manager")
        self.city = self._shown(city, "city")
        self.api_key = {"X-API-Key": "not yet"}

    def _shown(self, city: City, role: str) -> dict[str, str]:
        headers = city.bearer(role, *([UNIT] if role != "city" else []), subject=f"{role}-1")
        for part in headers["Authorization"].split(" ")[1].split("."):
            self._secrets.keep(part)
        return headers

    async def register(self) -> None:
        """Get an API key."""
        body = {"kind": "kiosk", "name": "Sảnh", "units": [UNIT]}
        made = await self._client.post("/v1/clients", json=body, headers=self.city)
        self.api_key = {"X-API-Key": self._secrets.keep(made.json()["api_key"])}

    async def send(self, method: str, path: str, headers: dict[str, str], **body: Any) -> Any:
        """Call with a key of its own, as JSON or as it is; give what the answer holds."""
        key = {"Idempotency-Key": f"{KEYS_BEGIN}{str(uuid4())[len(KEYS_BEGIN) :]}"}
        answer = await self._client.request(method, path, headers=headers | key, **body)
        self.statuses.append(answer.status_code)
        if answer.status_code >= 400:
            # Their own words a caller may read again, be it in the wrong field; credentials not.
            told = self._secrets.found_in(answer.text) - OWN_WORDS
            assert not told, f"{method} {path} tells {told}"
        kind = answer.headers.get("content-type", "")
        return answer.json() if kind.startswith("application/json") else {}

    async def visit(self) -> None:
        """Take a ticket, hand dossiers in, look at them, follow them, say how it was."""
        wish = {"unit": UNIT, "channel": "kiosk", "procedure_codes": [PROCEDURE]}
        ticket = await self.send("POST", "/v1/tickets", self.api_key, json=wish)
        for kind, who in (("citizen", PEOPLE), ("organisation", ORGANISATION)):
            body = {
                "procedure_code": PROCEDURE, "receiving_unit": UNIT, "channel": "direct",
                "components": [], "applicant": {"kind": kind} | who,
            }  # fmt: skip
            dossier = await self.send("POST", "/v1/dossiers", self.officer, json=body)
            code = dossier.get("code", "H29.26740-261124-0001")
            words = {"reason": WORDS, "note": WORDS}
            await self.send("POST", f"/v1/dossiers/{code}/assign", self.officer, json=words)
            await self.send("GET", f"/v1/dossiers/{code}", self.officer)
            await self.send("GET", f"/v1/dossiers/{code}/history", self.officer)
            await self.send("GET", f"/v1/track/{code}?phone_last4={PEOPLE['phone'][-4:]}", {})
        rated = f"/v1/tickets/{ticket.get('id', uuid4())}/satisfaction"
        await self.send("POST", rated, {}, json={"score": 2, "reason": WORDS})
        await self.send("GET", f"/v1/units/{UNIT}/satisfaction", self.manager)

    async def blunder(self) -> None:
        """Put the right words in the wrong places."""
        person = {"kind": "citizen"} | PEOPLE
        whole = {"procedure_code": PROCEDURE, "receiving_unit": UNIT, "channel": "direct"}
        officer = self.officer
        for body in (
            whole | {"applicant": person | {"phone": PEOPLE["id_number"]}},
            whole | {"applicant": [person]},
            whole | {"applicant": person, PEOPLE["email"]: PEOPLE["name"]},
            whole | {"applicant": person, "channel": WORDS},
            whole | {"applicant": person, "receiving_unit": PEOPLE["id_number"]},
        ):
            await self.send("POST", "/v1/dossiers", officer, json=body)
        raw = json.dumps(whole | {"applicant": person}, ensure_ascii=False).encode()
        for content, kind in (
            (raw[:-1], "application/json"), (raw, "text/plain"), (raw + raw, "application/json"),
            (raw.replace("Đ".encode(), b"\xff"), "application/json"),
        ):  # fmt: skip
            headers = officer | {"Content-Type": kind}
            await self.send("POST", "/v1/dossiers", headers, content=content)
        number, name = PEOPLE["id_number"], PEOPLE["name"]
        for path in (
            f"/v1/dossiers/{number}", f"/v1/track/{number}?phone_last4={name}", f"/v1/{name}",
            f"/v1/units?q={name}", f"/v1/units/{UNIT}/tickets?number={PEOPLE['phone']}",
            f"/v1/dossiers?cursor={PEOPLE['email']}", f"/{name}//x", f"/v1/clients/{number}",
        ):  # fmt: skip
            await self.send("GET", path, officer)
        broken = {"Authorization": officer["Authorization"][:-4] + "AAAA"}
        self._secrets.keep(broken["Authorization"].rpartition(".")[2])
        await self.send("GET", f"/v1/dossiers/{number}", broken)
        wrong = {"X-API-Key": self._secrets.keep("motcua_wrong-but-whose")}
        await self.send("POST", "/v1/tickets", wrong, json={"unit": UNIT, "channel": "kiosk"})

    async def crowd(self, rounds: int) -> None:
        """Let many do both at once."""

        async def worker() -> None:
            for _ in range(rounds):
                await self.visit()
                await self.blunder()

        await asyncio.gather(*(worker() for _ in range(WORKERS)))


async def _cut_off(database: asyncpg.Connection) -> None:
    """Take the database away from everybody, again and again."""
    for _ in range(10):
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(0.05)


async def _break(database: asyncpg.Connection) -> None:
    """Let statements fail in the middle of people's data: refused rows, a lost table, defects."""
    await database.execute(
        "ALTER TABLE intake.applicants ADD CONSTRAINT fault CHECK (length(name) < 5) NOT VALID;"
        "ALTER TABLE queue.ratings RENAME TO lost;"
        "ALTER TABLE reporting.tickets ADD CONSTRAINT fault CHECK (unit IS NULL) NOT VALID"
    )


async def _buried(database: asyncpg.Connection) -> None:
    """Wait until the reports have given an event up."""
    async with asyncio.timeout(30):
        while not await database.fetchval("SELECT count(*) FROM bus.log WHERE topic LIKE '%.dlq'"):
            await asyncio.sleep(0.1)


async def _read_by_others(database: asyncpg.Connection) -> dict[str, str]:
    """Give what the audit, the bus with its dead letters, and outboxes and keys hold, as text."""
    tables = await database.fetch(
        "SELECT schemaname || '.' || quote_ident(tablename) AS name FROM pg_tables"
        " WHERE schemaname IN ('bus', 'audit')"
        " OR tablename IN ('outbox', 'inbox', 'idempotency_keys') AND schemaname = ANY($1)",
        list(SERVICES),
    )
    texts = {}
    for (table,) in tables:
        values = [v for row in await database.fetch(f"SELECT * FROM {table}") for v in row.values()]
        texts[table] = "\n".join(
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            for value in values
        )
    return texts


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder for the city's data."""
    with reachable_folder() as folder:
        yield folder


async def test_nobody_reads_of_people_or_keys_whatever_goes_wrong(
    city_url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the level that writes most: what the others write, it writes as well."""
    database = await asyncpg.connect(city_url)
    with embedded(folder / "data", database_url=city_url, log_level="DEBUG") as city:
        secrets = Secrets(city, city_url)
        async with httpx.AsyncClient(base_url=city.base, timeout=30) as client:
            citizens = Citizens(city, client, secrets)
            await citizens.register()
            await citizens.crowd(2)
            await asyncio.gather(citizens.crowd(1), _cut_off(database))
            await _break(database)
            await citizens.crowd(1)
            await _buried(database)
            metrics = (await client.get("/metrics")).text
        places = {"metrics": metrics, **await _read_by_others(database)}
        await database.close()
        city.stop()
    places["log"] = city.log.read_text("utf-8")
    told = {place: found for place, text in places.items() if (found := secrets.found_in(text))}
    with capsys.disabled():
        print(
            f"\nlogs: {len(citizens.statuses)} calls"
            f" ({sum(s >= 500 for s in citizens.statuses)} of them 5xx),"
            f" {len(secrets.known)} secrets, {places['log'].count(chr(10))} log lines;"
            f" searched {sum(map(len, places.values())):,} characters in {len(places)} places"
        )
    assert not told, _shown(told, places)
    _assert_the_faults_were_met(citizens.statuses, places)


def _shown(told: dict[str, set[str]], places: dict[str, str]) -> str:
    """Show one line of each place for each secret."""
    return "\n".join(
        next(
            (f"{place}: {line[:600]}" for line in places[place].splitlines() if word in line), word
        )
        for place, found in told.items()
        for word in found
    )


def _assert_the_faults_were_met(statuses: list[int], places: dict[str, str]) -> None:
    """What was never written needs no searching: see that every fault left its mark."""
    assert {200, 201, 401, 404, 415, 422, 500, 503} <= set(statuses)
    log = places["log"]
    assert log.count('"request.failed"') > 2
    assert "Failing row contains" in log or "DETAIL" in log
    assert "database.away" in log
    assert ".dlq" in places["bus.log"]
    assert len(re.findall("refused|done|failed", places["audit.entries"])) > 100

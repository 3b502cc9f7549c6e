"""`motcua announce`: the registry's state is the newest again, whatever the bus had heard."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from libs.common.bus.base import Record
from libs.common.bus.embedded import open_embedded_bus
from libs.common.db import connector, service_url
from libs.common.events import Envelope, Event
from libs.common.worktime import OFFICIAL_HOURS
from libs.contracts.registry import (
    CentreChanged,
    ClientChanged,
    ClientKey,
    ClientKind,
    UnitChanged,
    UnitStatus,
)
from services.registry.announcing import known_to
from tests.cli.command import invoke
from tests.common.helpers import admin
from tests.support import settings_for

UNIT = "H29.26740"
LOST = "H29.99999"
KIOSK = "kiosk-0123456789ab"


async def say(url: str, *events: Event) -> None:
    """Put events on the bus that the registry's database knows nothing of."""
    records = [_record(event) for event in events]
    own = service_url(settings_for(url), "registry")
    async with (
        open_embedded_bus(own, connector(own, "registry")) as bus,
        bus.producer("test") as producer,
    ):
        await producer.send(records)


def _record(event: Event) -> Record:
    now = datetime.now(UTC)
    headers = Envelope(uuid4(), event.type_name(), "/motcua/registry", now, "").headers()
    return Record(event.topic, event.key, event.model_dump_json().encode(), headers)


async def heard(url: str) -> dict[tuple[str, str], bytes]:
    """Read the registry's states as who starts now would."""
    own = service_url(settings_for(url), "registry")
    async with open_embedded_bus(own, connector(own, "registry")) as bus:
        return await known_to(bus)


def lost_changes() -> Sequence[Event]:
    """Give what was announced after the moment to which the database was restored."""
    return [
        CentreChanged(
            unit=UNIT, version=9, latitude=None, longitude=None, hours=OFFICIAL_HOURS,
            counters_planned=33, procedures=None,
        ),
        UnitChanged(
            code=LOST, version=1, name="Phường Mới", type="ward", status=UnitStatus.planned,
            gso_code=None, aliases=(), valid_from=None, valid_to=None, successors=(),
            synthetic=True,
        ),
        ClientChanged(
            id=KIOSK, version=2, kind=ClientKind.kiosk, units=(UNIT,),
            keys=(ClientKey(sha256="ab" * 32, not_after=None),),
        ),
    ]  # fmt: skip


async def test_after_a_restore_the_registry_s_own_state_is_the_newest(city_url: str) -> None:
    await say(city_url, *lost_changes())
    done = await invoke("announce", "--json", url=city_url)
    assert done.status == 1
    assert done.json["unknown"] == [[ClientChanged.topic, KIOSK], [UnitChanged.topic, LOST]]
    states = await heard(city_url)
    centre = CentreChanged.read(states[CentreChanged.topic, UNIT])
    assert (centre.version, centre.counters_planned) == (10, 5)
    async with admin(city_url) as connection:
        stored = await connection.fetchval(
            "SELECT version FROM registry.centres WHERE unit = $1", UNIT
        )
    assert stored == 10  # so that the next change is newer still


async def test_a_key_that_the_registry_cannot_revoke_is_good_no_more(city_url: str) -> None:
    await say(city_url, *lost_changes())
    done = await invoke("announce", url=city_url)
    assert f"only the bus knows of {KIOSK}" in done.out
    assert "its keys are good no more" in done.out
    client = ClientChanged.read((await heard(city_url))[ClientChanged.topic, KIOSK])
    assert (client.version, client.keys) == (3, ())
    again = await invoke("announce", "--json", url=city_url)
    assert again.json["unknown"] == [[UnitChanged.topic, LOST]]


async def test_a_bus_that_lost_everything_hears_all_of_it_again(city_url: str) -> None:
    before = await heard(city_url)
    async with admin(city_url) as connection:
        await connection.execute("DELETE FROM bus.log WHERE topic LIKE 'registry.%'")
    done = await invoke("announce", "--json", url=city_url)
    assert (done.status, done.json["states"]) == (0, len(before))
    again = await heard(city_url)
    assert again.keys() == before.keys()
    unit = (UnitChanged.topic, UNIT)
    assert UnitChanged.read(again[unit]).version == UnitChanged.read(before[unit]).version + 1

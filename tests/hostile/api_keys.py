"""API keys that are not, or no longer, somebody's; and those of somebody else."""

import hashlib
import json
from typing import Any

from tests.hostile.house import House
from tests.hostile.verdict import Attack, Attacks
from tests.support import bearer
from tests.system.walk import HERE, THERE

WISH = {"unit": HERE, "channel": "kiosk"}
UNAUTHENTICATED = frozenset({401})


async def _registered(house: House, unit: str) -> dict[str, Any]:
    body = {"kind": "kiosk", "name": "Sảnh", "units": [unit]}
    made = await house.call("POST", "/v1/clients", bearer("city"), body)
    assert made.status == 201, made.body
    client: dict[str, Any] = json.loads(made.body)
    return client


async def api_keys(house: House) -> Attacks:
    """Take tickets with each of them."""
    mine, foreign = house.kiosks["good"], house.kiosks["foreign"]
    for what, key in {
        "nothing": "",
        "a space": " ",
        "a guess": "motcua_test",
        "its hash": hashlib.sha256(mine.encode()).hexdigest(),
        "without its last letter": mine[:-1],
        "with a letter more": mine + "x",
        "in capitals": mine.upper(),
        "in quotes": f'"{mine}"',
        "with a wildcard": mine[:-4] + "%",
        "SQL": "' OR 1=1 --",
        "revoked": house.kiosks["revoked"],
        "replaced": house.kiosks["replaced"],
        "60,000 letters": "x" * 60_000,
    }.items():
        request = house.request("POST", "/v1/tickets", {"X-API-Key": key}, WISH)
        hidden = (key,) if len(key) > 20 else ()
        yield Attack(what, request, frozenset({400, 401, 431}), hidden=hidden)
    for name in ("Authorization", "Api-Key", "X-Auth-Token", "Cookie"):
        request = house.request("POST", "/v1/tickets", {name: f"Bearer {mine}"}, WISH)
        yield Attack(f"as {name}", request, UNAUTHENTICATED, hidden=(mine,))
    for where in (f"?api_key={mine}", f"?X-API-Key={mine}"):
        request = house.request("POST", f"/v1/tickets{where}", {}, WISH)
        yield Attack("in the query", request, UNAUTHENTICATED, hidden=(mine,))
    request = house.request("POST", "/v1/tickets", {"X-API-Key": foreign}, WISH)
    yield Attack("of a kiosk elsewhere", request, frozenset({403}), noted=True)
    request = house.request("POST", "/v1/tickets", {"X-API-Key": mine}, WISH | {"unit": THERE})
    yield Attack("for another unit", request, frozenset({403}), noted=True)
    request = house.request("PUT", f"/v1/units/{HERE}/counters/1", {"X-API-Key": mine}, {})
    yield Attack("for what no kiosk may", request, frozenset({403}), noted=True)


async def register_kiosks(house: House) -> None:
    """Make the clients that the keys belong, or belonged, to."""
    ops = bearer("ops")
    made = {name: await _registered(house, unit) for name, unit in (
        ("good", HERE), ("foreign", THERE), ("revoked", HERE), ("replaced", HERE),
    )}  # fmt: skip
    await house.call("POST", f"/v1/clients/{made['revoked']['id']}/revoke", ops)
    rotate = f"/v1/clients/{made['replaced']['id']}/rotate"
    await house.call("POST", rotate, ops, {"overlap_seconds": 0})
    house.kiosks.update({name: client["api_key"] for name, client in made.items()})

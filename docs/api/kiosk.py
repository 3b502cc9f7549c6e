"""A kiosk's first minutes, with a client generated from `openapi.json` (see README.md beside this).

python docs/api/kiosk.py http://127.0.0.1:8000 API_KEY
"""

import sys
from uuid import uuid4

from motcua_client import AuthenticatedClient, Client
from motcua_client.api.routing import ask_route
from motcua_client.api.tickets import issue_ticket, show_ticket
from motcua_client.api.units import list_units
from motcua_client.models import (
    PageUnitOut,
    Problem,
    RouteIn,
    RouteOut,
    TicketAhead,
    TicketIn,
    TicketInChannel,
    TicketSeen,
)

PROCEDURE = "2.000815"
"""Certifying a copy, which every centre receives."""
OF_THE_PROVINCE = "2.001583"
"""A procedure that no ward's centre receives."""


def main(door: str, api_key: str) -> None:
    """Find the centre, ask where to go, take a ticket twice, and be refused three times."""
    anybody = Client(door, headers={"Accept-Language": "en"}, raise_on_unexpected_status=True)
    kiosk = AuthenticatedClient(
        door, api_key, prefix="", auth_header_name="X-API-Key", raise_on_unexpected_status=True
    )

    found = list_units.sync(client=anybody, q="sai gon")
    assert isinstance(found, PageUnitOut)
    unit = found.items[0]
    print(f"{unit.name} is {unit.code}")

    route = ask_route.sync(client=anybody, body=RouteIn(PROCEDURE, at_unit=unit.code))
    assert isinstance(route, RouteOut)
    print(route.reason)

    wish = TicketIn(unit.code, TicketInChannel.KIOSK, procedure_codes=[PROCEDURE])
    key = str(uuid4())  # made once per person, and kept until there is an answer
    first = issue_ticket.sync_detailed(client=kiosk, body=wish, idempotency_key=key)
    again = issue_ticket.sync_detailed(client=kiosk, body=wish, idempotency_key=key)
    assert isinstance(first.parsed, TicketAhead)
    assert again.parsed == first.parsed
    assert again.headers["Idempotent-Replayed"] == "true"
    print(f"number {first.parsed.number}, position {first.parsed.position}")

    seen = show_ticket.sync(first.parsed.id, client=anybody)
    assert isinstance(seen, TicketSeen)
    print(f"{seen.number} is {seen.status.value}")

    other = TicketIn(unit.code, TicketInChannel.KIOSK, series="B")
    not_taken = TicketIn(unit.code, TicketInChannel.KIOSK, procedure_codes=[OF_THE_PROVINCE])
    nowhere = TicketIn("H29.99999", TicketInChannel.KIOSK)
    for body, under in ((other, key), (not_taken, str(uuid4())), (nowhere, str(uuid4()))):
        refused = issue_ticket.sync(client=kiosk, body=body, idempotency_key=under)
        assert isinstance(refused, Problem)
        fields = [error.field for error in refused.errors or []]
        print(refused.status, refused.type_.rpartition(":")[2], fields)


if __name__ == "__main__":
    main(*sys.argv[1:])

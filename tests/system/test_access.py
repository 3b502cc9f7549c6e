"""Who may do what: every route, as every role, compared with the table."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from fastapi import APIRouter

from libs.common.app import Service, create_app
from libs.contracts.access import ACCESS
from libs.contracts.roles import RULES, Role
from services.embedded import APPS, GATEWAY, city
from tests.support import bearer, running, settings_for
from tests.system.walk import HERE, THERE, Walk, ask


@pytest.fixture
async def app(city_url: str) -> AsyncIterator[Any]:
    """Run the whole city in process, on a morning when its centres are open."""
    start = datetime.fromisoformat("2026-11-24T09:00+07:00")
    clock = f"{start.isoformat()},x1,{datetime.now().astimezone().timestamp():.0f}"
    async with city(settings_for(city_url, clock=clock)) as app:
        while (await ask(app, "GET", "/readyz", {})).status != 200:
            pass
        yield app


async def test_every_route_lets_in_whom_the_table_names_and_nobody_else(
    app: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = await Walk.begin(app)
    await walk.run()
    with capsys.disabled():
        print(
            f"\n{len(walk.operations)} routes as {len(Role)} roles for their own unit and another "
            f"one: {walk.calls} calls, {walk.foreign} of them for a unit that is not the caller's; "
            f"{len(walk.wrong)} differ from the table"
        )
    assert not walk.wrong, "\n".join(walk.wrong)
    assert walk.foreign > 0


async def test_a_unit_that_does_not_exist_is_404_and_one_of_others_403(app: Any) -> None:
    for role in ("kiosk", "officer", "manager"):
        wish = {"unit": THERE, "channel": "kiosk"}
        answers = [
            await ask(app, "POST", "/v1/tickets", bearer(role, HERE), wish | {"unit": unit})
            for unit in (HERE, THERE, "H29.99999")
        ]
        assert [answer.status for answer in answers] == [201, 403, 404]
    for unit, status in ((HERE, 204), (THERE, 403), ("H29.99999", 404)):
        counter = f"/v1/units/{unit}/counters/1"
        officer = bearer("officer", HERE)
        await ask(app, "PUT", counter, officer, {"state": "open", "series": ["Z"]})
        answer = await ask(app, "POST", f"{counter}/call-next", officer)
        assert answer.status == status, answer.body


async def test_each_name_in_the_query_is_looked_at(app: Any) -> None:
    officer = bearer("officer", HERE)
    for query in (f"unit={THERE}&unit={HERE}", f"unit={HERE}&unit={THERE}"):
        assert (await ask(app, "GET", f"/v1/dossiers?{query}", officer)).status == 403


def test_every_route_has_a_rule_also_where_it_is_not_described() -> None:
    routes = {
        (method, route.path)
        for each in (*APPS.values(), GATEWAY)
        for included in each.routes
        for route in getattr(getattr(included, "original_router", None), "routes", ())
        for method in route.methods
    }
    assert ("GET", "/units/{unit}/board") in routes
    assert routes - RULES.keys() == set()


# Deny by default ------------------------------------------------------------------------------

router = APIRouter(prefix="/v1/forgotten")


@router.get("")
async def forgotten() -> None:
    """Be a route for which nobody wrote a rule."""


@router.post("")
async def forgotten_too() -> None:
    """Be another."""


async def test_a_route_without_a_rule_is_refused_to_everybody(database_url: str) -> None:
    app = create_app(Service("queue", "Forgot a rule.", routers=[router], access=ACCESS))
    async with running(app, settings_for(database_url)) as client:
        for role in Role:
            headers = {} if role is Role.nobody else bearer(role, HERE)
            for method in ("GET", "POST"):
                answer = await client.request(method, "/v1/forgotten", headers=headers)
                assert answer.status_code == 403
                assert answer.json()["detail"] == f"no rule says who may {method} /v1/forgotten"
        refused = await client.get("/v1/forgotten", headers=bearer("mayor"))
        assert refused.status_code == 403


def test_a_rule_that_lets_everybody_read_lets_nobody_write() -> None:
    """What changes something for a caller without a name is short, and listed here."""
    open_to_all = {
        f"{method} {path}"
        for (method, path), rule in RULES.items()
        if method != "GET" and Role.nobody in rule.may
    }
    assert open_to_all == {
        "POST /v1/route",
        "POST /v1/tickets",
        "POST /v1/tickets/{ticket_id}/cancel",
        "POST /v1/tickets/{ticket_id}/satisfaction",
        "POST /v1/appointments",
        "POST /v1/appointments/{appointment_id}/cancel",
        "POST /v1/appointments/{appointment_id}/check-in",
    }

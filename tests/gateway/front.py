"""A gateway without the city: its door and what it needs, before services that a test has made."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from libs.common.auth import Verifier
from libs.common.health import Health
from libs.common.issuers import TokenSigner, gateway_key, trust_issuers
from libs.common.settings import SERVICES, Settings
from libs.contracts.access import ACCESS
from services.gateway.addresses import Proxies
from services.gateway.api_keys import ApiKeys
from services.gateway.clients import over_http
from services.gateway.door import _asks, _problem_of
from services.gateway.gates import Gates
from services.gateway.main import app
from services.gateway.rates import counting
from services.gateway.server import bounded_by
from tests.serving import HOST, serving, with_state
from tests.support import DATA_DIR

NOBODY = 1
"""A port on which nothing listens."""


@dataclass
class Front:
    """The gateway on a port of its own."""

    port: int
    client: httpx.AsyncClient
    state: dict[str, Any]


def before(ports: Mapping[str, int], **changes: Any) -> Settings:
    """Make the settings of a gateway before services on these ports; the others are away."""
    urls = {f"{service}_url": f"http://{HOST}:{ports.get(service, NOBODY)}" for service in SERVICES}
    return Settings.model_validate({"data_dir": DATA_DIR} | urls | changes)


@asynccontextmanager
async def front(
    ports: Mapping[str, int], server: Mapping[str, Any] | None = None, /, **changes: Any
) -> AsyncIterator[Front]:
    """Open a gateway; `server` are changes to uvicorn's settings, the rest to ours."""
    settings = before(ports, **changes)
    verifier = Verifier(settings.oidc_audience, roles=ACCESS.roles)
    trust_issuers(verifier, settings)
    health = Health()
    async with (
        counting(settings) as rates,
        over_http(settings, stopping=asyncio.Event()) as forwarder,
    ):
        state: dict[str, Any] = {
            "settings": settings, "verifier": verifier, "health": health, "rates": rates,
            "proxies": Proxies(settings.proxies), "gates": Gates(settings), "api_keys": ApiKeys(),
            "signer": TokenSigner(gateway_key(settings), settings.oidc_audience),
            "forwarder": forwarder,
        }  # fmt: skip
        health.wanted["rates"] = _problem_of(rates)
        health.wanted |= {service: _asks(state, service) for service in SERVICES}
        how = {"http": bounded_by(settings)} | dict(server or {})
        async with (
            serving(with_state(app, state), **how) as port,
            httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=10) as client,
        ):
            yield Front(port, client, state)


async def main() -> None:
    """Serve as a process of its own before the service on the port that is named."""
    async with front(dict.fromkeys(SERVICES, int(sys.argv[1]))) as opened:
        print(opened.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

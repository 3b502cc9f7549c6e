"""The whole city in one process: `python -m services.embedded`, which is what `make run` starts."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

import services.gateway.main
import services.intake.main
import services.queue.main
import services.registry.main
import services.reporting.main
from libs.common.app import Core
from libs.common.clock import clock_from
from libs.common.settings import Settings
from services.gateway.clients import InProcess
from services.gateway.server import bounded_by
from services.launch import STOP_SIGNALS, greet, launch

APPS: dict[str, FastAPI] = {
    "registry": services.registry.main.app,
    "intake": services.intake.main.app,
    "queue": services.queue.main.app,
    "reporting": services.reporting.main.app,
}
GATEWAY = services.gateway.main.app

GRACE_SECONDS = 5
"""How long open requests may take to end; with the rest of the stop it stays below ten."""


def main() -> int:
    """Run the city until it is told to stop; answer the exit status."""
    return launch(_serve)


async def _serve(settings: Settings, listener: socket.socket) -> None:
    async with city(settings) as app:
        await _serve_http(app, settings, listener)


async def _serve_http(app: "_City", settings: Settings, listener: socket.socket) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",  # `city` has entered them
            log_config=None,
            access_log=False,
            server_header=False,
            http=bounded_by(settings),
            proxy_headers=False,  # the door itself knows whom to believe
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    # uvicorn would raise the signal again once it has stopped, before the rest of us has.
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        app.end_streams()
        server.should_exit = True

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    greet(settings, listener)
    await server.serve(sockets=[listener])


class _City:
    """The gateway's app with its own state, on which every request enters."""

    def __init__(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        self._states = states
        self._state = {**states["gateway"], "forwarder": InProcess(APPS, states)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = dict(self._state)
        await GATEWAY(scope, receive, send)

    def end_streams(self) -> None:
        """Let what has no end of its own end now, before the server waits for open requests."""
        for state in self._states.values():
            state["core"].stopping.set()


@asynccontextmanager
async def city(settings: Settings) -> AsyncIterator[_City]:
    """Enter the lifespans of all five apps on one clock and join them."""
    clock = clock_from(settings.clock)
    async with AsyncExitStack() as stack:
        states: dict[str, Mapping[str, Any]] = {}
        for name, app in [*APPS.items(), ("gateway", GATEWAY)]:
            app.state.settings, app.state.clock, app.state.embedded = settings, clock, True
            state = await stack.enter_async_context(app.router.lifespan_context(app))
            assert state is not None
            states[name] = state
        _speak_for_all(states)
        yield _City(states)


def _speak_for_all(states: Mapping[str, Mapping[str, Any]]) -> None:
    """Let the gateway's health be that of the whole process."""
    cores: dict[str, Core] = {name: state["core"] for name, state in states.items()}
    door = cores["gateway"]
    for name in APPS:
        own = cores[name].health
        door.health.wanted.pop(name, None)
        door.health.needed |= {f"{name} {check}": run for check, run in own.needed.items()}
        door.health.wanted |= {f"{name} {check}": run for check, run in own.wanted.items()}
    door.health.dead_tasks = lambda: [
        f"{name} {task}" for name, core in cores.items() for task in core.tasks.dead
    ]


if __name__ == "__main__":
    sys.exit(main())

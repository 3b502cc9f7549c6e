"""The city as five processes: `python -m services.apart`, which `make run KAFKA=1` starts.

What Kubernetes does in production is done here by hand: the services first, the door when they are
ready; who dies is started again; all are stopped together.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

import httpx
import structlog

from libs.common.children import dying_with_parent
from libs.common.clock import SystemClock, clock_from
from libs.common.settings import SERVICES, Settings
from services.launch import STOP_SIGNALS, CannotStart, greet, launch

log = structlog.get_logger()

GATEWAY = "gateway"
START_SECONDS = 60.0
"""How long a service may take until it is ready."""
STOP_SECONDS = 8.0
"""How long all may take to stop; with the database's and the broker's own it stays below ten."""
RESTART_SECONDS = 1.0


def main() -> int:
    """Run the city until it is told to stop; answer the exit status."""
    return launch(_serve)


async def _serve(settings: Settings, listener: socket.socket) -> None:
    greet(settings, listener)
    ports = {name: _free_port() for name in SERVICES}
    environment = _environment(settings, ports)
    children = [_Child(name, port, environment) for name, port in ports.items()]
    door = _Child(GATEWAY, listener.getsockname()[1], environment, settings.host)
    told = asyncio.Event()
    starting = asyncio.create_task(_start(children, door, listener))

    def stop() -> None:
        told.set()
        starting.cancel()

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        with suppress(asyncio.CancelledError):
            await starting
        await told.wait()
    finally:
        await _stop(door, *children)


async def _start(children: list["_Child"], door: "_Child", listener: socket.socket) -> None:
    for child in children:
        child.start()
    await asyncio.gather(*(child.ready() for child in children))
    listener.close()  # the door listens there itself; nobody came in before
    door.start()
    await door.ready()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(settings: Settings, ports: Mapping[str, int]) -> dict[str, str]:
    """Give what every child is told besides what we were told: where the others are."""
    assert settings.database_url is not None
    clock = clock_from(settings.clock)
    told = {f"{name}_URL": f"http://127.0.0.1:{port}" for name, port in ports.items()} | {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        # The anchor is this moment, so that all of them agree.
        "CLOCK": "system" if isinstance(clock, SystemClock) else str(clock),
    }
    if settings.kafka_bootstrap is not None:
        told["KAFKA_BOOTSTRAP"] = settings.kafka_bootstrap
    return os.environ | {f"MOTCUA_{name.upper()}": value for name, value in told.items()}


class _Child:
    """One service's process, started again whenever it ends by itself."""

    def __init__(
        self, name: str, port: int, environment: Mapping[str, str], host: str = "127.0.0.1"
    ) -> None:
        self.name = name
        self._address = host, port
        self._environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep(), name=self.name)

    async def _keep(self) -> None:
        while True:
            self._process = await self._spawn()
            status = await self._process.wait()
            log.warning("service.ended", service=self.name, status=status)
            await asyncio.sleep(RESTART_SECONDS)

    async def _spawn(self) -> asyncio.subprocess.Process:
        host, port = self._address
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"services.{self.name}",
            env=self._environment | {"MOTCUA_HOST": host, "MOTCUA_PORT": str(port)},
            # Ctrl-C is for us, who stop the door before the services behind it.
            start_new_session=True,
            preexec_fn=dying_with_parent(signal.SIGTERM),
        )  # fmt: skip

    async def ready(self) -> None:
        """Wait for the first 200 of `readyz`.

        Raises:
            CannotStart: it does not come.
        """
        host, port = self._address
        end = monotonic() + START_SECONDS
        said = "no answer"
        async with httpx.AsyncClient(timeout=5) as client:
            while monotonic() < end:
                with suppress(httpx.TransportError):
                    answer = await client.get(f"http://{host}:{port}/readyz")
                    if answer.status_code == 200:
                        return
                    said = answer.text
                await asyncio.sleep(0.05)
        raise CannotStart(f"{self.name} is not ready after {START_SECONDS:.0f} s: {said[:1000]}")

    async def stop(self, by: float) -> None:
        """Ask it to stop, and kill it if it has not by an instant of the monotonic clock."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(max(0.0, by - monotonic())):
                await process.wait()
        except TimeoutError:
            log.warning("service.killed", service=self.name)
            process.kill()
            await process.wait()


async def _stop(door: _Child, *services: _Child) -> None:
    """Stop the door, then who stands behind it."""
    end = monotonic() + STOP_SECONDS
    await door.stop(end - 2)
    await asyncio.gather(*(service.stop(end) for service in services))


if __name__ == "__main__":
    sys.exit(main())

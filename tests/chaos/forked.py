"""Cities that start at once: forked from a process that has imported their code already."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.chaos.programs import EmbeddedCity
from tests.system.city import environment

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["services.embedded"])


class ForkedCity(EmbeddedCity):
    """The same city without the two seconds that its imports take: for runs of many starts."""

    def start(self, fault: str = "") -> None:
        """Start it, perhaps to kill itself at a fault point."""
        settings = self.settings | ({"fault": fault} if fault else {})
        self.process = _Forked(environment(**settings), self.log)


class _Forked:
    """What is asked of a `Popen`, for a process that was forked."""

    def __init__(self, settings: dict[str, str], log: Path) -> None:
        self._process = _CONTEXT.Process(target=_be_a_city, args=(settings, str(log)))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Answer how it has ended, or None."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait until it has ended; answer how."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("city", timeout)
        return code

    def terminate(self) -> None:
        """Ask it to stop."""
        os.kill(self.pid, signal.SIGTERM)


def _be_a_city(settings: dict[str, str], log: str) -> None:
    """Become what `python -m services.embedded` is."""
    import services.embedded

    os.setsid()
    os.environ.clear()
    os.environ.update(settings)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.exit(services.embedded.main())

"""Processes of the city that start at once: forked from one that has imported their code already.

Importing it takes a process two seconds of one core, as long as a short test. What such a process
runs is what `python -m …` runs; tests of the command itself, and of what it costs, start it so.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from libs.common.settings import SERVICES

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["uvicorn", "services.launch", *(f"services.{name}.main" for name in (*SERVICES, "gateway"))]
)


class Started:
    """What is asked of a `Popen`, for a process that was forked."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Run a module as `python -m` would, its output added to a log."""
        log.touch()
        self.args = command
        self._process = _CONTEXT.Process(target=_run, args=(command, dict(environment), log))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it has ended; a signal's number is negative."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Answer how it has ended, or None."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait until it has ended; raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self.send_signal(signal.SIGKILL)


Process = Started | subprocess.Popen[bytes]
Run = Callable[[Sequence[str], Mapping[str, str], Path], Process]
"""Runs a command in an environment, its output added to a log."""


def as_command(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start it as a person does: it imports everything anew."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _run(command: Sequence[str], environment: dict[str, str], log: Path) -> None:
    """Become that program, in a session of its own."""
    dash_m, module, *arguments = command
    assert dash_m == "-m"
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

"""The real Prometheus programs for the tests that need one; see `deploy.monitoring.programs`."""

import os
import subprocess
from pathlib import Path

import pytest

from deploy.monitoring.programs import CannotRun, Program, find

REQUIRED = "MOTCUA_REQUIRE_PROMETHEUS"
"""Set to 1, a machine that cannot have the programs fails these tests instead of skipping them."""


def program(name: Program) -> Path:
    """Give the path of a program; skip the test where it cannot be had, or fail if it must be."""
    try:
        return find(name)
    except CannotRun as missing:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, but {missing}")
        pytest.skip(str(missing))


def told_by(name: Program, *words: str | Path) -> tuple[int, str]:
    """Run `promtool` or `amtool`; give its exit status and all it said."""
    done = subprocess.run(
        [program(name), *words], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr

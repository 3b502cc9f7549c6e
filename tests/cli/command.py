"""Runs commands of `motcua` and gives what they said."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs
from typer.testing import CliRunner

from services.cli import cli
from tests.support import DATA_DIR
from tests.system.city import environment


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Read its output as JSON."""
        return json.loads(self.out)


async def motcua(
    *words: str, url: str | None = None, answer: str = "", **settings: str | Path | int
) -> Done:
    """Run a command as a process of its own; `answer` is what the person types."""
    if url is not None:
        settings["database_url"] = url
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.cli", *words),
        env=environment(**{"data_dir": DATA_DIR, **settings}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(answer.encode())
    return Done(process.returncode or 0, out.decode(), err.decode())


async def invoke(
    *words: str, url: str | None = None, answer: str = "", **settings: str | Path | int
) -> Done:
    """Run a command in this process, which is faster, on a thread with an event loop of its own."""
    if url is not None:
        settings["database_url"] = url
    env = environment(**{"data_dir": DATA_DIR, **settings})
    hidden = {name: None for name in os.environ if name not in env}
    with capture_logs():  # `main` keeps the mechanism's log lines from standing among sentences
        result = await asyncio.to_thread(
            CliRunner().invoke, cli, words, input=answer, env={**hidden, **env}
        )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)

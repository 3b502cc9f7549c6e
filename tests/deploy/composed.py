"""What `docker compose` makes of docker-compose.yml, and what its own check does not see."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from libs.common.settings import Settings, explain_settings
from services.cli import cli
from tests.support import PRODUCTION

ROOT = Path(__file__).parents[2]
IMAGE = "motcua"
_PREFIX = "MOTCUA_"
_DURATION = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?")
_LEAVING_SECONDS = 4
"""What the bus and a tick of the server may take after the calls have finished."""

Document = dict[str, Any]


def composed() -> Document:
    """Let the real Compose read the file, in an environment that says nothing.

    Raises:
        subprocess.CalledProcessError: it refuses; why stands on standard error.
    """
    program = Path(sys.executable).with_name("docker-compose")
    file = str(ROOT / "docker-compose.yml")
    words = [str(program), "--file", file, "config", "--format", "json"]
    told = subprocess.run(words, env={"HOME": "/"}, capture_output=True, check=True)
    document: Document = json.loads(told.stdout)
    return document


def findings(document: Document) -> list[str]:
    """Say all that is wrong with a composition, each by its service."""
    services: Mapping[str, Document] = document["services"]
    return [
        f"{name}: {words}"
        for name, service in services.items()
        for words in (
            *_of_any(service),
            *_of_waiting(service, services),
            *(_of_ours(service, services) if service["image"] == IMAGE else ()),
        )
    ]


def settings_of(service: Document) -> dict[str, str]:
    """Give our settings in a service's environment, named as in `Settings`."""
    environment: dict[str, str] = service.get("environment") or {}
    return {
        name.removeprefix(_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(_PREFIX)
    }


def _of_any(service: Document) -> Iterator[str]:
    image = service["image"]
    if "build" not in service and not re.search(r":v?\d+\.\d+", image):
        yield f"{image} may be another image tomorrow: name its version"
    for port in service.get("ports", ()):
        if port.get("host_ip") != "127.0.0.1":
            yield f"port {port['published']} is open to others than this machine"
    for mount in service.get("volumes", ()):
        if mount["type"] == "bind":
            if not Path(mount["source"]).exists():
                yield f"{mount['source']} is mounted and does not exist"
            if not mount.get("read_only"):
                yield f"{mount['source']} could be written: mount it read-only"


def _of_waiting(service: Document, services: Mapping[str, Document]) -> Iterator[str]:
    for other, wish in service.get("depends_on", {}).items():
        awaited, condition = services[other], wish["condition"]
        if condition == "service_healthy" and not _tells_its_health(awaited):
            yield f"waits for the health of {other}, which has no check"
        if condition == "service_completed_successfully" and "restart" in awaited:
            yield f"waits for the end of {other}, which is always started again"
        if condition == "service_started":
            yield f"waits for {other} to start, which says nothing"


def _tells_its_health(service: Document) -> bool:
    return "healthcheck" in service or (service["image"] == IMAGE and "restart" in service)


def _of_ours(service: Document, services: Mapping[str, Document]) -> Iterator[str]:
    if not service.get("read_only") or service.get("tmpfs") != ["/tmp"]:  # noqa: S108
        yield "needs no writable file system but /tmp"
    if service.get("cap_drop") != ["ALL"]:
        yield "needs no capability"
    if service.get("security_opt") != ["no-new-privileges:true"]:
        yield "needs no new privileges"
    if not _known(service["command"]):
        yield f"there is no command {' '.join(service['command'])}"
    told = settings_of(service)
    yield from _of_names(told, services)
    try:
        settings = Settings(**told)  # type: ignore[arg-type]
    except ValidationError as error:
        yield explain_settings(error)
    else:
        least = settings.drain_seconds + settings.finish_seconds + _LEAVING_SECONDS
        given = _seconds(service.get("stop_grace_period", "10s"))
        if given < least:
            yield f"may take {least:g} s to stop, and is killed after {given:g}"


def _known(command: list[str]) -> bool:
    match command:
        case ["python", "-m", module]:
            return (ROOT / module.replace(".", "/") / "__main__.py").exists()
        case ["motcua", *words]:
            return tuple(words) in _commands()
    return False


@cache
def _commands() -> set[tuple[str, ...]]:
    """List the operator's commands, those of a group with its name."""
    found: set[tuple[str, ...]] = set()
    for name, command in getattr(typer.main.get_command(cli), "commands", {}).items():
        group = getattr(command, "commands", None)
        found |= {(name,)} if group is None else {(name, one) for one in group}
    return found


def _of_names(told: Mapping[str, str], services: Mapping[str, Document]) -> Iterator[str]:
    unknown = sorted(told.keys() - Settings.model_fields.keys())
    yield from (f"{_PREFIX}{name.upper()} is no setting" for name in unknown)
    for name, value in told.items():
        if name.endswith("database_url"):
            yield from _of_password(name, value)
        host = urlsplit(value if "://" in value else f"//{value}").hostname
        if name.endswith(("_url", "_bootstrap")) and host not in services:
            yield f"{_PREFIX}{name.upper()} leads to {host}, which is not here"


def _of_password(name: str, url: str) -> Iterator[str]:
    try:
        Settings(**PRODUCTION, hours="official", **{name: url})  # type: ignore[arg-type]
    except ValidationError as error:
        if "default password" in explain_settings(error):
            return
    yield f"production would take the password of {_PREFIX}{name.upper()}, which all can read here"


def _seconds(duration: str) -> float:
    parts = _DURATION.fullmatch(duration)
    assert parts is not None, duration
    return int(parts[1] or 0) * 60 + int(parts[2] or 0)

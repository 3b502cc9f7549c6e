"""A client generated from the description is complete, typed, and does what integrators need."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.embedded import city
from tests.serving import serving
from tests.support import bearer, settings_for

ROOT = Path(__file__).parents[2]
DESCRIPTION = ROOT / "docs" / "api" / "openapi.json"
KIOSK = ROOT / "docs" / "api" / "kiosk.py"
GENERATOR = ROOT / ".venv" / "client"
"""The generator's own packages: it wants older ones than the city does."""


async def run(*command: str | Path, path: list[Path], where: Path) -> str:
    """Run a Python program while this process goes on, and give what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, command),
        cwd=where,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture(scope="module")
async def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate the client; a warning about any operation or shape is a failure."""
    folder = tmp_path_factory.mktemp("client")
    config = folder / "config.yml"
    config.write_text("package_name_override: motcua_client\npost_hooks: []\n", "utf-8")
    await run(
        *("-m", "openapi_python_client", "generate", "--path", DESCRIPTION, "--config", config),
        *("--meta", "none", "--output-path", folder / "motcua_client", "--fail-on-warning"),
        path=[GENERATOR],
        where=folder,
    )
    return folder


@pytest.fixture
async def door(city_url: str) -> AsyncIterator[str]:
    """Serve a whole city on a socket."""
    async with city(settings_for(city_url)) as whole, serving(whole) as port:
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base) as client, asyncio.timeout(20):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
        yield base


async def test_every_operation_is_in_the_client_and_all_of_it_is_typed(generated: Path) -> None:
    from services.announced.calls import description

    for item in description()["paths"].values():
        for call in item.values():
            assert (
                generated / f"motcua_client/api/{call['tags'][0]}/{call['operationId']}.py"
            ).exists()
    (generated / "kiosk.py").write_bytes(KIOSK.read_bytes())
    said = await run("-m", "mypy", "--strict", generated, path=[], where=generated)
    assert "no issues found" in said


async def test_a_kiosk_works_with_the_generated_client(generated: Path, door: str) -> None:
    async with httpx.AsyncClient(base_url=door) as client:
        wish = {"kind": "kiosk", "name": "Sảnh chính", "units": ["H29.26740"]}
        registered = await client.post("/v1/clients", json=wish, headers=bearer("city"))
        assert registered.status_code == 201, registered.text
    api_key = registered.json()["api_key"]
    said = await run(KIOSK, door, api_key, path=[generated], where=generated)
    lines = said.splitlines()
    assert lines[0] == "Phường Sài Gòn is H29.26740"
    assert "Phường Sài Gòn" in lines[1]
    assert lines[2:] == [
        "number A001, position 1",
        "A001 is waiting",
        "422 malformed ['Idempotency-Key']",
        "409 procedure-not-offered []",
        "404 unknown-unit []",
    ]

"""The examples of the description: of every operation, valid, and what a city really answers."""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from services.announced.calls import description
from services.embedded import city
from services.gateway import openapi
from tests.conftest import _copy
from tests.serving import serving
from tests.support import settings_for
from tests.system.example_calls import Day, alike, clock_at, written

FILE = Path(openapi.__file__).with_name("examples.json")
CALLS = {
    call["operationId"]: call for item in description()["paths"].values() for call in item.values()
}


def kept() -> dict[str, dict[str, Any]]:
    """Read the examples that were written down."""
    made: dict[str, dict[str, Any]] = json.loads(FILE.read_text("utf-8"))
    return made


@pytest.fixture(scope="module")
async def day(server_url: str, seeded: str) -> AsyncIterator[Day]:
    """Play the day on a real city; with MOTCUA_WRITE_EXAMPLES write down what it answered."""
    async for url in _copy(server_url, seeded):
        settings = settings_for(url, clock=clock_at(time.time()), recall_interval_seconds=0)
        async with (
            city(settings) as whole,
            serving(whole) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
        ):
            async with asyncio.timeout(20):
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.01)
            day = await Day.begin(client)
            await day.play()
            assert day.trouble == []
        if "MOTCUA_WRITE_EXAMPLES" in os.environ:
            FILE.write_text(written(day.made), "utf-8")
        yield day


async def test_every_operation_is_called_in_the_day(day: Day) -> None:
    assert day.made.keys() == CALLS.keys()


async def test_the_examples_are_what_the_city_answers_now(day: Day) -> None:
    """If this fails after a change of a call: `make examples contracts`."""
    now = json.loads(written(day.made))
    before = kept()
    assert before.keys() == now.keys()
    for operation, example in now.items():
        assert before[operation]["status"] == example["status"], operation
        if operation != "readyz":  # what is degraded is named, and only then
            assert alike(before[operation], example), operation
        if "body" in example and "signed" not in example["body"]:
            assert before[operation]["body"] == example["body"], operation


async def test_every_answer_of_the_day_has_the_shape_that_is_described(day: Day) -> None:
    for operation, made in day.made.items():
        contents = CALLS[operation]["responses"][str(made["status"])].get("content", {})
        if "application/json" in contents:
            _valid(contents["application/json"]["schema"], made["answer"])


def _valid(schema: dict[str, Any], value: Any) -> None:
    whole = DRAFT202012.create_resource(description())
    registry: Registry[Any] = Registry().with_resource("urn:description", whole)
    text = json.dumps(schema).replace('"#/', '"urn:description#/')
    Draft202012Validator(json.loads(text), registry=registry).validate(value)


@pytest.mark.parametrize("operation", CALLS)
def test_an_example_is_what_the_description_says(operation: str) -> None:
    call = CALLS[operation]
    for parameter in call.get("parameters", ()):
        if parameter["required"]:
            assert "example" in parameter
        if "example" in parameter:
            _valid(parameter["schema"], parameter["example"])
    if "requestBody" in call:
        content = call["requestBody"]["content"]["application/json"]
        if "example" in content:  # most bodies of steps may be left out
            _valid(content["schema"], content["example"])
        else:
            assert not call["requestBody"].get("required")
    status = str(kept()[operation]["status"])
    contents = call["responses"][status].get("content", {})
    assert bool(contents) == (status != "204")
    for media_type, content in contents.items():
        assert "example" in content
        if media_type == "application/json":
            _valid(content["schema"], content["example"])


def test_no_example_holds_a_credential() -> None:
    assert not re.findall(r"eyJ[\w-]{20,}|[\w-]{40,}", FILE.read_text("utf-8"))

"""The description of the API, fuzzed: a short run, the same each time."""

import asyncio

import pytest

from tests.hostile.fuzz import fuzz
from tests.hostile.house import House
from tests.serving import HOST


async def test_no_generated_request_gets_an_answer_that_is_not_described(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    base = f"http://{HOST}:{house.port}"
    account = await asyncio.to_thread(fuzz, base, house.known, examples=3, seed=20261124)
    with capsys.disabled():
        print(f"\n{account}")
    assert len(account.operations) > 70
    assert not account.wrong, "\n\n".join(f"{w}: {h}" for w, h in account.wrong.items())

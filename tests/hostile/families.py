"""All families of attacks, and a run through them."""

from collections.abc import Awaitable, Callable
from typing import Final

from tests.hostile.api_keys import api_keys, register_kiosks
from tests.hostile.bodies import bodies, targets
from tests.hostile.fields import fields
from tests.hostile.house import House
from tests.hostile.parameters import parameters
from tests.hostile.replays import replays
from tests.hostile.requests import requests
from tests.hostile.tokens import tokens
from tests.hostile.verdict import Family, Tally, run
from tests.hostile.words import confusables, languages, stored

REFUSED: Final[dict[str, tuple[Family, int]]] = {
    "tokens": (tokens, 1),
    "api keys": (api_keys, 1),
    "requests": (requests, 1),
    "confusables": (confusables, 1),
    "languages": (languages, 1),
    "bodies": (bodies, 3),
    "fields": (fields, 7),
    "parameters": (parameters, 11),
}
"""What must be refused and change nothing; of the large ones a short run takes every so many."""

PLAYED: Final[dict[str, tuple[Callable[[House, Tally, int], Awaitable[None]], int]]] = {
    "replays": (replays, 1),
    "stored": (stored, 7),
}
"""What has effects, each of which is accounted for."""


async def prepare(house: House) -> None:
    """Make what the attacks are aimed at."""
    await register_kiosks(house)
    await targets(house)


async def attack(house: House, name: str, tally: Tally, *, short: bool) -> None:
    """Run a family; a short run takes a part of each large one."""
    if name in REFUSED:
        family, every = REFUSED[name]
        await run(house, name, family, tally, every if short else 1)
    else:
        play, every = PLAYED[name]
        await play(house, tally, every if short else 1)

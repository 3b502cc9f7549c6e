"""Idempotency keys in other hands, for other calls, and many at once."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from tests.hostile.house import House
from tests.hostile.verdict import Attack, Tally, changes
from tests.serving import Answer
from tests.support import bearer
from tests.system.walk import HERE, THERE

NAME: Final = "replays"
TICKETS: Final = "/v1/tickets"
WISH: Final[dict[str, Any]] = {"unit": HERE, "channel": "kiosk"}
TWINS: Final = 12
HERS: Final = bearer("kiosk", HERE, subject="kiosk-a")
ANOTHERS: Final = bearer("kiosk", HERE, subject="kiosk-b")


@dataclass
class _Play:
    """Sends calls, judges each answer, and remembers which tickets were made."""

    house: House
    tally: Tally
    made: set[str] = field(default_factory=set)

    async def post(
        self, what: str, headers: Mapping[str, str], body: Any, status: int, path: str = TICKETS,
        **keys: str,
    ) -> Answer:  # fmt: skip
        """Post something with an idempotency key, and expect a status."""
        lines = {"Idempotency-Key": keys["key"]} if keys else {}
        request = self.house.request("POST", path, {**headers, **lines}, body)
        answer = await self.house.exchange(request)
        self.tally.count(NAME, Attack(what, request, frozenset({status})), answer)
        if answer.status == 201:
            self.made.add(_id(answer))
        return answer

    def check(self, truth: bool, what: str) -> None:
        """Blame what is not so."""
        if not truth:
            self.tally.blame(NAME, what)


def _id(answer: Answer) -> str:
    return str(json.loads(answer.body)["id"])


def _is_replay(answer: Answer) -> bool:
    return answer.all("idempotent-replayed") == ["true"]


async def replays(house: House, tally: Tally, every: int = 1) -> None:
    """Play them; only the tickets that were answered may be there afterwards."""
    play = _Play(house, tally)
    before = await house.settled()
    await _in_other_hands(play)
    await _for_other_calls(play)
    await _at_once(play)
    after = await house.settled()
    issued = after["queue.tickets"][0] - before["queue.tickets"][0]
    play.check(
        issued == len(play.made), f"{len(play.made)} tickets answered, {issued} in the books"
    )
    touched = {change.split(":")[0] for change in changes(before, after)}
    known = {"queue.tickets", "queue.ticket_numbers", "queue.idempotency_keys", "queue.inbox",
             "reporting.inbox", "reporting.tickets", "reporting.ticket_days"}  # fmt: skip
    play.check(touched <= known, f"something else changed: {touched - known}")
    await house.assert_serving()


async def _in_other_hands(play: _Play) -> None:
    """A key is somebody's own: whoever finds it out learns nothing and repeats nothing."""
    key = str(uuid4())
    first = await play.post("her first", HERS, WISH, 201, key=key)
    again = await play.post("her second", HERS, WISH, 201, key=key)
    play.check(_is_replay(again) and again.body == first.body, "a repetition is another answer")
    officer = bearer("officer", HERE, subject="kiosk-a")
    for what, who, channel in (
        ("another kiosk", ANOTHERS, "kiosk"),
        ("an officer of her name", officer, "counter"),
        ("a citizen", {}, "web"),
        ("the portal", bearer("portal"), "portal"),
    ):
        theirs = await play.post(what, who, WISH | {"channel": channel}, 201, key=key)
        play.check(not _is_replay(theirs), f"{what} was given her answer")
    elsewhere = bearer("kiosk", THERE, subject="kiosk-c")
    await play.post("a kiosk elsewhere", elsewhere, WISH, 403, key=key)
    await play.post("a broken token", {"Authorization": "Bearer a.b.c"}, WISH, 401, key=key)


async def _for_other_calls(play: _Play) -> None:
    """The same key for another call is another call, or refused; it never answers for it."""
    key = str(uuid4())
    taken = await play.post("a ticket", HERS, WISH, 201, key=key)
    for what, body in {
        "another unit": WISH | {"unit": THERE},
        "another class": WISH | {"priority_class": "elderly"},
        "another procedure": WISH | {"procedure_codes": ["2.000815"]},
    }.items():
        status = 403 if body["unit"] == THERE else 422
        await play.post(what, HERS, body, status, key=key)
    await play.post("another query", HERS, WISH, 422, f"{TICKETS}?x=1", key=key)
    await play.post("no body", HERS, {}, 422, key=key)
    doubled = b'{"unit": "%s", "channel": "web", "channel": "kiosk"}' % HERE.encode()
    same = await play.post("a field twice, the last the same", HERS, doubled, 201, key=key)
    play.check(_is_replay(same), "a field that stands twice is read in two ways")
    step = f"{TICKETS}/{_id(taken)}"
    printed = await play.post("another path", HERS, None, 200, f"{step}/printed", key=key)
    play.check(not _is_replay(printed), "one path was answered for another")
    await play.post("a path that is not hers", HERS, None, 403, f"{step}/finish", key=key)
    for what, odd in {
        "256 characters": "x" * 256, "nothing": "", "a citizen's own word": "hello",
        "a citizen's SQL": "' OR 1=1 --",
    }.items():  # fmt: skip
        who = {} if "citizen" in what else HERS
        await play.post(what, who, WISH | ({"channel": "web"} if not who else {}), 422, key=odd)
    for odd in ("'; DROP TABLE idempotency_keys; --", "\t\x0b", "ключ", "%00", "x" * 255):
        if odd.strip():
            await play.post(f"{odd[:20]!r}", HERS, WISH, 201, key=odd)


async def _at_once(play: _Play) -> None:
    """Twins in flight have one effect and one answer, those of several callers one each."""
    key = str(uuid4())
    callers = (HERS, ANOTHERS)
    answers = await asyncio.gather(
        *(play.post("a twin", callers[n % 2], WISH, 201, key=key) for n in range(TWINS))
    )
    tickets = [{_id(answer) for answer in answers[n::2] if answer.status == 201} for n in (0, 1)]
    play.check([len(made) for made in tickets] == [1, 1], f"twins made {tickets}")
    bodies = [WISH, WISH | {"priority_class": "elderly"}]
    key = str(uuid4())
    requests = [
        play.house.request("POST", TICKETS, HERS | {"Idempotency-Key": key}, bodies[n % 2])
        for n in range(TWINS)
    ]
    mixed = await asyncio.gather(*map(play.house.exchange, requests))
    for request, answer in zip(requests, mixed, strict=True):
        attack = Attack("twins that differ", request, frozenset({201, 422}))
        play.tally.count(NAME, attack, answer)
    made = {_id(answer) for answer in mixed if answer.status == 201}
    play.check(len(made) == 1, f"twins that differ made {made}")
    play.made |= made

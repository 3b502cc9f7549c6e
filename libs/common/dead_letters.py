"""Dead letters: messages that a group gave up, kept with the reason until replayed or dropped."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, uuid5

from libs.common.bus.base import Bus, Received, Record
from libs.common.events import Envelope
from libs.common.outbox import INBOX_KEPT

DEAD_LETTER_SUFFIX = ".dlq"

_PRODUCER = "dead-letter-replay"
"""One sender at a time: a second operator's command fences the first instead of racing it."""


def dead_letter(group: str, message: Received, error: Exception) -> dict[str, object]:
    """Make the outbox row of a message given up: its own headers and value, and the reason."""
    try:
        envelope = Envelope.of(message.headers)
    except ValueError:
        place = f"{message.topic}/{message.partition}/{message.offset}"
        envelope = Envelope(
            uuid5(NAMESPACE_URL, place), "Unreadable", f"/motcua/{group}", datetime.now(UTC), ""
        )
    reason = {
        "motcua_dead_group": group,
        "motcua_dead_topic": message.topic,
        "motcua_dead_key": message.key,
        "motcua_dead_offset": str(message.offset),
        "motcua_dead_reason": f"{type(error).__name__}: {error}"[:500],
        "motcua_dead_at": datetime.now(UTC).isoformat(),
    }
    return {
        "event_id": envelope.id,
        "topic": message.topic + DEAD_LETTER_SUFFIX,
        "key": f"{group}:{envelope.id}",
        "type": envelope.type,
        "time": envelope.time,
        "traceparent": envelope.traceparent,
        "body": message.value,
        "extra": {
            name: _storable(value) for name, value in (dict(message.headers) | reason).items()
        },
    }


def _storable(text: str) -> str:
    """Replace what PostgreSQL does not keep: a letter that cannot be written would block all."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


async def list_dead_letters(bus: Bus, topics: Sequence[str]) -> list[Received]:
    """Read the dead letters of topics that were neither replayed nor dropped."""
    alive: dict[tuple[str, str], Received] = {}
    dead_topics = [topic + DEAD_LETTER_SUFFIX for topic in topics]
    async with bus.follow(dead_topics) as follower:
        while not follower.caught_up:
            for record in await follower.fetch(1000, 0.2):
                alive.pop((record.topic, record.key), None)
                if "motcua_dead_topic" in record.headers:
                    alive[record.topic, record.key] = record
    return list(alive.values())


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of dead letters that were to be replayed."""

    sent: int = 0
    superseded: int = 0
    """A newer state of the same key is on the compacted topic: the old one must not follow it."""
    too_old: int = 0
    """Groups that handled the event may have forgotten that they did; these letters stay."""


async def replay_dead_letters(
    bus: Bus, letters: Sequence[Received], *, compacted: Container[str] = ()
) -> Replayed:
    """Send dead letters to their topic again, as the same events, and take them off the list.

    Groups that had handled an event know its id; only the one that gave it up handles it now.
    """
    topics = {letter.headers["motcua_dead_topic"] for letter in letters}
    newest = await _newest_offsets(bus, [topic for topic in topics if topic in compacted])
    sent = superseded = too_old = 0
    async with bus.producer(_PRODUCER) as producer:
        for letter in letters:
            place = (letter.headers["motcua_dead_topic"], letter.headers["motcua_dead_key"])
            if _age(letter) > INBOX_KEPT:
                too_old += 1
                continue
            if newest.get(place, -1) > int(letter.headers["motcua_dead_offset"]):
                superseded += 1
            else:
                await producer.send([Record(*place, letter.value, own_headers(letter))])
                sent += 1
            await producer.send([_off_the_list(letter)])
    return Replayed(sent, superseded, too_old)


async def drop_dead_letters(bus: Bus, letters: Sequence[Received]) -> None:
    """Take dead letters off the list for ever: the group that gave them up never handles them."""
    async with bus.producer(_PRODUCER) as producer:
        await producer.send([_off_the_list(letter) for letter in letters])


def _off_the_list(letter: Received) -> Record:
    return Record(letter.topic, letter.key, None)


def own_headers(letter: Received) -> dict[str, str]:
    """Give the headers that the message had before it died."""
    return {
        name: value for name, value in letter.headers.items() if not name.startswith("motcua_dead_")
    }


def _age(letter: Received) -> timedelta:
    """Tell for how long a letter has been dead, by the wall clock."""
    return datetime.now(UTC) - datetime.fromisoformat(letter.headers["motcua_dead_at"])


async def _newest_offsets(bus: Bus, topics: Sequence[str]) -> dict[tuple[str, str], int]:
    """Tell where the newest record of each key stands on compacted topics."""
    newest: dict[tuple[str, str], int] = {}
    async with bus.follow(topics) as follower:
        while not follower.caught_up:
            for record in await follower.fetch(1000, 0.2):
                newest[record.topic, record.key] = record.offset
    return newest

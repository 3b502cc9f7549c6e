"""What is asked of the brokers beside sending and reading: topics, offsets, an answer."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NodeNotReadyError,
    NotCoordinatorForGroupError,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.structs import TopicPartition

from libs.common.bus.base import BusError, Topic, TopicRefused, TopicState, UnknownTopic
from libs.common.bus.kafka.connection import Connection, within

T = TypeVar("T")

_NOT_YET = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
"""What brokers answer while they settle who keeps a group's offsets."""
_TRIES = 4
"""How often a broker is asked that cannot be reached."""
_SET_ON_THE_TOPIC = 1
"""The source of a setting that the topic itself has, not the broker's default."""
_SETTLED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Room:
    """Where a topic's records may go."""

    partitions: list[int]
    largest: int
    """Bytes of a batch that the brokers take."""


class Admin:
    """One client for questions, opened at the first; after an error the next opens another.

    So an outage leaves nothing behind, and brokers that came back elsewhere are found by the
    addresses that were configured.
    """

    def __init__(self, connection: Connection) -> None:
        """Prepare; nothing is opened yet."""
        self._connection = connection
        self._client: AIOKafkaAdminClient | None = None
        self._opening = asyncio.Lock()
        self._known: dict[str, Room] = {}

    async def close(self) -> None:
        """Close the client if it is open."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                await client.close()

    async def ask(self, doing: str, question: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """Ask the brokers something, in bounded time.

        Raises:
            BusError: there was no answer, or the answer was an error.
        """
        client = None
        try:
            async with within(self._connection.answer_seconds, doing):
                client = await self._opened()
                for again in itertools.count(1):
                    try:
                        return await question(client)
                    except _NOT_YET:
                        pass
                    except NodeNotReadyError:
                        # Any broker is asked, perhaps one that has just died; not for long, as
                        # the next client looks for them at the addresses that were configured.
                        if again == _TRIES:
                            raise
                    await asyncio.sleep(0.1)
                raise AssertionError
        except BusError:
            if self._client is client:  # or somebody has opened another already
                await self.close()
            raise

    async def _opened(self) -> AIOKafkaAdminClient:
        async with self._opening:
            if self._client is None:
                client = AIOKafkaAdminClient(
                    **self._connection.options(self._connection.answer_seconds)
                )
                try:
                    await client.start()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def ping(self) -> None:
        """Return if a broker answers."""
        await self.ask("looking for Kafka", lambda client: client.describe_topics([]))

    # Topics -----------------------------------------------------------------------------------

    async def topics(self) -> dict[str, list[int]]:
        """List the partitions of every topic there is."""
        described = await self._described()
        # A topic that was just made may not have told all of its partitions yet.
        return {
            entry["topic"]: sorted(part["partition"] for part in entry["partitions"])
            for entry in described
            if entry["partitions"]
        }

    async def _described(self) -> list[Any]:
        # All of them: a question for names might make those topics.
        return await self.ask("listing topics", lambda client: client.describe_topics(None))

    async def room(self, names: Collection[str]) -> dict[str, Room]:
        """Tell where records of topics may go, from memory where that is known.

        Raises:
            UnknownTopic: one does not exist.
        """
        known = self._known
        if fresh := [name for name in names if name not in known]:
            found = await self.topics()
            for name in fresh:
                if name not in found:
                    raise UnknownTopic(name)
            settings = await self._settings(fresh)
            for name in fresh:
                known[name] = Room(found[name], int(settings[name]["max.message.bytes"]))
        return known

    def forget(self) -> None:
        """Look anew the next time."""
        self._known = {}

    async def describe(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Tell what the topics are like that exist."""
        known = await self.topics()
        wanted = [name for name in names if name in known]
        settings = await self._settings(wanted)
        return {
            name: TopicState(
                name,
                compacted="compact" in settings[name]["cleanup.policy"].split(","),
                partitions=len(known[name]),
                kept=_span(settings[name]["retention.ms"]),
            )
            for name in wanted
        }

    async def apply(self, topics: Sequence[Topic]) -> None:
        """Create the topics that are missing; give the others their partitions and settings.

        Raises:
            TopicRefused: one has more partitions than it should; nothing was changed.
        """
        found = await self.describe(topic.name for topic in topics)
        for topic in topics:
            state = found.get(topic.name)
            if state and (state.partitions or 0) > topic.partitions:
                raise TopicRefused(
                    f"{topic.name} has {state.partitions} partitions and should have "
                    f"{topic.partitions}: Kafka cannot take any away, and order per key would go"
                )
        await self._create([topic for topic in topics if topic.name not in found])
        for topic in topics:
            if state := found.get(topic.name):
                await self._adjust(topic, state)

    async def _create(self, topics: Sequence[Topic]) -> None:
        if not topics:
            return
        wanted = [_new_topic(topic) for topic in topics]
        answer = await self.ask("creating topics", lambda client: client.create_topics(wanted))
        for name, code, message in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise TopicRefused(f"{name} cannot be created: {message or error.__name__}")
        await self._until_led({topic.name: topic.partitions for topic in topics})

    async def _until_led(self, counts: dict[str, int]) -> None:
        """Wait until every partition can be written to."""

        async def led() -> bool:
            found = {
                entry["topic"]: sum(part["leader"] >= 0 for part in entry["partitions"])
                for entry in await self._described()
            }
            return all(found.get(name, 0) >= count for name, count in counts.items())

        await _until(led, "waiting for the new topics")

    async def _adjust(self, topic: Topic, state: TopicState) -> None:
        if (state.partitions or 0) < topic.partitions:
            more = {topic.name: NewPartitions(topic.partitions)}
            await self.ask("adding partitions", lambda client: client.create_partitions(more))
            await self._until_led({topic.name: topic.partitions})
            self.forget()
        if state.compacted != topic.compacted or state.kept != topic.kept:
            # What this request does not name goes back to the broker's default.
            own = (await self._settings([topic.name], own=True))[topic.name]
            wanted = _wanted_settings(topic)
            await self._alter(topic.name, own | wanted)

            async def settled() -> bool:
                now = (await self._settings([topic.name]))[topic.name]
                return wanted.items() <= now.items()

            await _until(settled, f"waiting for the settings of {topic.name}")

    async def _alter(self, name: str, settings: dict[str, str]) -> None:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name, settings)]
        answers = await self.ask("setting topics", lambda client: client.alter_configs(wanted))
        for code, message, *_ in (entry for answer in answers for entry in answer.resources):
            if code:
                raise TopicRefused(f"{name} cannot be set: {message or for_code(code).__name__}")

    async def _settings(
        self, names: Collection[str], *, own: bool = False
    ) -> dict[str, dict[str, str]]:
        """Read topics' settings; with `own` only those that are not the broker's defaults."""
        if not names:
            return {}
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        answers = await self.ask("reading topics", lambda client: client.describe_configs(wanted))
        found: dict[str, dict[str, str]] = {}
        for code, message, _, name, entries in (e for a in answers for e in a.resources):
            if code:
                raise BusError(f"reading {name}: {message or for_code(code).__name__}")
            found[name] = {
                entry[0]: entry[1] for entry in entries if not own or entry[3] == _SET_ON_THE_TOPIC
            }
        return found

    # Groups -----------------------------------------------------------------------------------

    async def committed(
        self, group: str, places: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Give the offsets that a group has committed, where it has."""
        found = await self.ask(
            f"reading the offsets of {group}",
            lambda client: client.list_consumer_group_offsets(group, partitions=list(places)),
        )
        return {place: entry.offset for place, entry in found.items() if entry.offset >= 0}


async def _until(settled: Callable[[], Awaitable[bool]], doing: str) -> None:
    """Wait until a change is everywhere: brokers answer before that."""
    async with within(_SETTLED_SECONDS, doing):
        while not await settled():  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.02)


def _new_topic(topic: Topic) -> NewTopic:
    new = NewTopic(topic.name, topic.partitions, 1, topic_configs=_wanted_settings(topic))
    # As many copies as the brokers keep by default; the constructor does not take this value.
    new.replication_factor = -1
    return new


def _wanted_settings(topic: Topic) -> dict[str, str]:
    return {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "retention.ms": "-1" if topic.kept is None else str(int(topic.kept.total_seconds() * 1000)),
    }


def _span(milliseconds: str) -> timedelta | None:
    return None if milliseconds == "-1" else timedelta(milliseconds=int(milliseconds))

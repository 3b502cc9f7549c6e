"""What topics should be, as code says, and what the carrier has."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from libs.common.bus.base import Topic, TopicState


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing about a topic that is not as it should be."""

    topic: str
    what: str
    """`topic` (it is missing), `partitions`, `compacted` or `kept`."""
    wanted: object
    found: object

    def __str__(self) -> str:
        """Say it in words."""
        if self.what == "topic":
            return f"{self.topic} is missing"
        return f"{self.topic}: {self.what} should be {self.wanted}, is {self.found}"


def differences(wanted: Iterable[Topic], found: Mapping[str, TopicState]) -> list[Difference]:
    """Compare; what the carrier does not know of (the embedded one has no partitions) is right."""
    return [entry for topic in wanted for entry in _of(topic, found.get(topic.name))]


def _of(topic: Topic, state: TopicState | None) -> Iterator[Difference]:
    if state is None:
        yield Difference(topic.name, "topic", "present", "missing")
        return
    if state.compacted != topic.compacted:
        yield Difference(topic.name, "compacted", topic.compacted, state.compacted)
    if state.partitions is None:
        return
    if state.partitions != topic.partitions:
        yield Difference(topic.name, "partitions", topic.partitions, state.partitions)
    if state.kept != topic.kept:
        yield Difference(topic.name, "kept", _span(topic.kept), _span(state.kept))


def _span(kept: timedelta | None) -> str:
    return "for ever" if kept is None else f"{kept / timedelta(days=1):g} days"

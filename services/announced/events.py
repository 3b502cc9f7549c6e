"""Which events there are: the classes of `libs.contracts`, found, not listed."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from pydantic import BaseModel

import libs.contracts
from libs.common.bus.base import Topic
from libs.common.events import Event
from libs.contracts.topics import FACTS
from services.announced.examples import example_of
from services.consumers import FOLLOWED, ROUTERS


@cache
def announced() -> tuple[type[Event], ...]:
    """List every event, by topic and then as they stand in the code.

    Raises:
        ValueError: an event travels on a topic that FACTS does not name, or two have one name.
    """
    kinds = [kind for name in iter_modules(libs.contracts.__path__) for kind in _of(name.name)]
    kinds = [kind for kind in kinds if not any(_extends(other, kind) for other in kinds)]
    places = {topic.name: place for place, topic in enumerate(FACTS)}
    names = [kind.type_name() for kind in kinds]
    for kind in kinds:
        if kind.topic not in places:
            raise ValueError(f"{kind.type_name()}: name its topic {kind.topic} in contracts/topics")
        if names.count(kind.type_name()) > 1:
            raise ValueError(f"two events are named {kind.type_name()}")
    return tuple(sorted(kinds, key=lambda kind: places[kind.topic]))


def _of(module: str) -> list[type[Event]]:
    found = vars(import_module(f"libs.contracts.{module}"))
    return [
        value
        for value in found.values()
        if isinstance(value, type)
        and issubclass(value, Event)
        and value.__module__ == f"libs.contracts.{module}"
        and hasattr(value, "topic")
    ]


def _extends(other: type[Event], kind: type[Event]) -> bool:
    """Tell whether a class is only what another one is made from."""
    return other is not kind and issubclass(other, kind)


def on_topic(topic: Topic) -> list[type[Event]]:
    """List the events of one topic."""
    return [kind for kind in announced() if kind.topic == topic.name]


def handlers_of(kind: type[Event]) -> list[str]:
    """Name the services that handle an event with their database."""
    return [
        service
        for service, router in ROUTERS.items()
        if router.find(kind.topic, kind.type_name()) is not None
    ]


def followers_of(topic: str) -> list[str]:
    """Name the services of which every process keeps a topic in memory."""
    return [service for service, topics in FOLLOWED.items() if topic in topics]


def key_of(kind: type[Event]) -> tuple[list[str], str]:
    """Give the fields that an event's key is made of, and what it keeps in order."""
    example = example_of(kind)
    fields = [name for name in kind.model_fields if _depends(example, name)]
    return fields, (kind.key.__doc__ or "").strip()


def _depends(example: Event, name: str) -> bool:
    """Tell whether an event's key changes, or cannot be made, with another value of a field."""
    try:
        return example.model_copy(update={name: object()}).key != example.key
    except AttributeError:
        return True


def description_of(kind: type[BaseModel]) -> str:
    """Give what a class says of itself."""
    return " ".join((kind.__doc__ or "").split())

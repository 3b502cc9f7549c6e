"""`docs/events.md`: the catalogue for people."""

import json
from collections.abc import Iterator

from libs.common.bus.base import Topic
from libs.common.events import Event
from libs.contracts.topics import FACTS
from services.announced.events import (
    description_of,
    followers_of,
    handlers_of,
    key_of,
    on_topic,
)
from services.announced.examples import example_of

_HEAD = """\
# Events

Made by `make contracts` from `libs/contracts` and the services' routers; a test holds it to them.

Records follow the CloudEvents 1.0 binary binding: `ce_id`, `ce_type`, `ce_source`, `ce_time` and
`traceparent` are headers, the body is the JSON below. They come at least once and in order per key:
tell repetitions apart by `ce_id`. Topics that are *compacted* carry whole states: keep the one with
the highest `version`. Ignore fields and types you do not know; there will be more, and none will
go. The schema of each event is in [`api/events/`](api/events), the whole as AsyncAPI 3 in
[`api/asyncapi.json`](api/asyncapi.json). No event holds personal data.

A service *handles* an event once, in one of its processes, with its database; it *follows* a topic
when every process reads all of it into memory. What a service cannot handle goes to the topic's
`.dlq` ([operations](operations.md)).
"""


def page() -> str:
    """Write the page."""
    return "\n".join([_HEAD, *_overview(), *(line for topic in FACTS for line in _topic(topic))])


def _overview() -> Iterator[str]:
    yield "| topic | producer | key | kept | events |"
    yield "|---|---|---|---|---|"
    for topic in FACTS:
        kinds = on_topic(topic)
        links = ", ".join(f"[{k.type_name()}](#{k.type_name().lower()})" for k in kinds)
        yield f"| `{topic.name}` | {_producers(kinds)} | {_key(kinds)} | {_kept(topic)} | {links} |"
    yield ""


def _producers(kinds: list[type[Event]]) -> str:
    return ", ".join(sorted({kind.producer for kind in kinds})) or "nobody yet"


def _key(kinds: list[type[Event]]) -> str:
    return ", ".join(sorted({"/".join(f"`{name}`" for name in key_of(kind)[0]) for kind in kinds}))


def _kept(topic: Topic) -> str:
    if topic.compacted:
        return "compacted"
    return "for ever" if topic.kept is None else f"{topic.kept.days} days"


def _topic(topic: Topic) -> Iterator[str]:
    kinds = on_topic(topic)
    yield f"## `{topic.name}`"
    yield ""
    facts = [
        f"Producer: {_producers(kinds)}",
        f"key: {_key(kinds)}",
        f"{_kept(topic)}",
        f"{topic.partitions} partition{'s' if topic.partitions > 1 else ''}",
        f"followed by: {', '.join(followers_of(topic.name)) or 'nobody'}",
    ]
    yield "; ".join(facts) + "."
    yield ""
    for kind in kinds:
        yield from _event(kind)


def _event(kind: type[Event]) -> Iterator[str]:
    name = kind.type_name()
    example = example_of(kind)
    yield f"### {name}"
    yield ""
    when = "Announced at every change" if kind.compacted else "Announced when it happens"
    yield f"{when}: {description_of(kind)}"
    yield ""
    handled = ", ".join(handlers_of(kind)) or "nobody"
    yield f"Handled by: {handled}. [Schema](api/events/{name}.json). Key `{example.key}`:"
    yield ""
    yield "```json"
    yield json.dumps(example.model_dump(mode="json"), ensure_ascii=False, indent=2)
    yield "```"
    yield ""

"""The whole as an AsyncAPI 3 document: channels are topics, messages are events."""

from typing import Any

from libs.common.bus.base import Topic
from libs.common.dead_letters import DEAD_LETTER_SUFFIX
from libs.common.events import Envelope, Event
from libs.common.outbox import source_of
from libs.contracts.topics import FACTS
from services.announced.events import (
    announced,
    description_of,
    followers_of,
    handlers_of,
    key_of,
    on_topic,
)
from services.announced.examples import AT, EVENT_ID, TRACE, example_of
from services.announced.schemas import open_ended

VERSION = "3.0.0"
KAFKA = "0.5.0"
"""Version of the Kafka bindings."""

_ABOUT = f"""\
What motcua's services tell each other. Records follow the CloudEvents 1.0 binary binding: the
attributes are headers (`ce_id`, `ce_type`, ...), the body is the event's data as JSON in UTF-8.

Delivery is at least once, in order per key; `ce_id` tells repetitions apart. Compacted topics carry
whole states with a rising `version`: the newest wins. Changes are additive, so readers ignore
fields and types that they do not know. What a service cannot handle goes to the topic of the same
name with `{DEAD_LETTER_SUFFIX}` behind it. No event holds personal data."""


def document() -> dict[str, Any]:
    """Make the document."""
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "motcua events",
            "version": "1",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "Without Kafka the same records travel in a PostgreSQL table.",
                "variables": {"bootstrap": {"default": "127.0.0.1:9092"}},
            }
        },
        "channels": {topic.name: _channel(topic) for topic in FACTS},
        "operations": dict(op for topic in FACTS for op in _operations(topic)),
        "components": {
            "schemas": _schemas(),
            "messages": {kind.type_name(): _message(kind) for kind in announced()},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    retention = -1 if topic.kept is None else int(topic.kept.total_seconds() * 1000)
    settings = (
        {"cleanup.policy": ["compact"]}
        if topic.compacted
        else {"cleanup.policy": ["delete"], "retention.ms": retention}
    )
    names = [kind.type_name() for kind in on_topic(topic)]
    return {
        "address": topic.name,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": settings,
                "bindingVersion": KAFKA,
            }
        },
    }


def _operations(topic: Topic) -> list[tuple[str, dict[str, Any]]]:
    """Say who sends on a topic, who handles which of its events, and who keeps it in memory."""
    kinds = on_topic(topic)
    handled: dict[str, list[type[Event]]] = {}
    for kind in kinds:
        for service in handlers_of(kind):
            handled.setdefault(service, []).append(kind)
    return [
        *(
            (f"{producer}.announces.{topic.name}", _operation("send", topic, kinds))
            for producer in sorted({kind.producer for kind in kinds})
        ),
        *(
            (f"{service}.handles.{topic.name}", _operation("receive", topic, some, group=service))
            for service, some in handled.items()
        ),
        *(
            (f"{service}.follows.{topic.name}", _operation("receive", topic, kinds))
            for service in followers_of(topic.name)
        ),
    ]


def _operation(
    action: str, topic: Topic, kinds: list[type[Event]], *, group: str | None = None
) -> dict[str, Any]:
    channel = f"#/channels/{topic.name}"
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{kind.type_name()}"} for kind in kinds],
    }
    if group is not None:
        operation["bindings"] = {
            "kafka": {
                "groupId": {"type": "string", "enum": [group]},
                "bindingVersion": KAFKA,
            }
        }
    return operation


def _schemas() -> dict[str, Any]:
    """Give the bodies of all events; parts that several have in common stand once."""
    found: dict[str, Any] = {}
    for kind in announced():
        schema = open_ended(kind.model_json_schema(ref_template="#/components/schemas/{model}"))
        for name, part in {**schema.pop("$defs", {}), kind.type_name(): schema}.items():
            if found.setdefault(name, part) != part:
                raise ValueError(f"two parts of events are named {name}")
    return found


def _message(kind: type[Event]) -> dict[str, Any]:
    example = example_of(kind)
    fields, order = key_of(kind)
    headers = Envelope(EVENT_ID, kind.type_name(), source_of(kind.producer), AT, TRACE).headers()
    return {
        "name": kind.type_name(),
        "title": kind.type_name(),
        "summary": description_of(kind),
        "contentType": "application/json",
        "headers": _headers(kind),
        "payload": {"$ref": f"#/components/schemas/{kind.type_name()}"},
        "bindings": {
            "kafka": {
                "key": {
                    "type": "string",
                    "description": f"{'/'.join(fields)}. {order}",
                    "examples": [example.key],
                },
                "bindingVersion": KAFKA,
            }
        },
        "examples": [{"headers": headers, "payload": example.model_dump(mode="json")}],
    }


def _headers(kind: type[Event]) -> dict[str, Any]:
    """Describe the CloudEvents attributes and the trace, as `Envelope` writes them."""
    return {
        "type": "object",
        "required": ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type"],
        "properties": {
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_id": {"type": "string", "format": "uuid"},
            "ce_type": {"type": "string", "const": kind.type_name()},
            "ce_source": {"type": "string", "const": source_of(kind.producer)},
            "ce_time": {
                "type": "string",
                "format": "date-time",
                "description": "When the fact happened, by the city's clock.",
            },
            "traceparent": {"type": "string", "description": "W3C trace context, or empty."},
            "content-type": {"type": "string", "const": "application/json"},
        },
    }

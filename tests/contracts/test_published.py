"""The documents of the events: they are those of the code, valid, and changed by addition only."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from libs.common.events import Envelope
from libs.contracts.directory import TOPICS
from libs.contracts.topics import FACTS
from services.announced import __main__ as command
from services.announced.__main__ import documents, published
from services.announced.asyncapi import document
from services.announced.events import announced, key_of, on_topic
from services.announced.examples import example_of
from services.announced.schemas import breaking_changes, schemas
from services.consumers import ROUTERS
from services.registry import seed

OFFICIAL = (
    Path(__file__)
    .parents[2]
    .joinpath(".venv/asyncapi/node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json")
)
NAMES = [kind.type_name() for kind in announced()]
Schemas = dict[str, dict[str, Any]]


# What is published is what the code says --------------------------------------------------------


def test_the_documents_are_those_of_the_code() -> None:
    """If this fails after a change of an event: `make contracts`."""
    stale = [str(path) for path, text in documents().items() if path.read_text("utf-8") != text]
    assert stale == []


def test_every_change_since_the_last_publication_is_an_addition() -> None:
    assert list(breaking_changes(published(), schemas())) == []


def test_every_published_event_is_still_there() -> None:
    assert set(published()) == set(NAMES)


def test_every_topic_has_an_event_and_every_event_a_topic() -> None:
    assert [topic.name for topic in FACTS if not on_topic(topic)] == []
    assert sorted(kind.topic for kind in announced()) == sorted(
        kind.topic for topic in FACTS for kind in on_topic(topic)
    )


def test_every_event_that_is_handled_is_announced() -> None:
    assert {kind for router in ROUTERS.values() for kind in router} <= set(announced())


# The schemas ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_what_the_schema_says_and_what_the_class_reads(name: str) -> None:
    [kind] = [kind for kind in announced() if kind.type_name() == name]
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    body = example_of(kind).model_dump_json()
    Draft202012Validator(schema).validate(json.loads(body))
    assert kind.read(body.encode()) == example_of(kind)


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_allows_fields_that_come_later(name: str) -> None:
    assert '"additionalProperties": false' not in json.dumps(published()[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_fields_of_a_key_make_it(name: str) -> None:
    [kind] = [kind for kind in announced() if kind.type_name() == name]
    told = example_of(kind).model_dump(mode="json")
    assert "/".join(str(told[field]) for field in key_of(kind)[0]) == example_of(kind).key


def test_examples_speak_of_the_seeded_city() -> None:
    units = (seed._DATA / "units.csv").read_text("utf-8")
    procedures = (seed._DATA / "procedures.csv").read_text("utf-8")
    for kind in announced():
        told = example_of(kind).model_dump(mode="json")
        for field in ("unit", "receiving_unit", "competent_unit", "gso_code"):
            if field in told:
                assert told[field].removeprefix("H29.") in units, (kind, field)
        if "procedure_code" in told:
            assert told["procedure_code"] in procedures


# What is no addition ------------------------------------------------------------------------------


def _remove(name: str) -> Callable[[Schemas], None]:
    def change(now: Schemas) -> None:
        schema = now["TicketIssued"]
        del schema["properties"][name]
        schema["required"] = [field for field in schema["required"] if field != name]

    return change


def _rename(now: Schemas) -> None:
    properties = now["TicketIssued"]["properties"]
    properties["office"] = properties.pop("unit")
    now["TicketIssued"]["required"] = [
        "office" if field == "unit" else field for field in now["TicketIssued"]["required"]
    ]


def _require_new(now: Schemas) -> None:
    now["TicketIssued"]["properties"]["language"] = {"type": "string"}
    now["TicketIssued"]["required"].append("language")


def _set(event: str, *path: str, to: Any) -> Callable[[Schemas], None]:
    def change(now: Schemas) -> None:
        place: Any = now[event]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


_STATUS = ("DossierReceived", "$defs", "DossierStatus", "enum")
NULLABLE = [{"type": "string"}, {"type": "null"}]

BREAKING = {
    "an event is removed": (lambda now: now.pop("TicketNoShow"), "TicketNoShow was published"),
    "a required field is removed": (_remove("unit"), "TicketIssued.unit: was removed"),
    "an optional field is removed": (
        _remove("procedure_codes"), "TicketIssued.procedure_codes: was removed"),
    "a field is renamed": (_rename, "TicketIssued.unit: was removed or renamed"),
    "a new field is required": (_require_new, "TicketIssued.language: is required"),
    "an optional field becomes required": (
        lambda now: now["TicketIssued"]["required"].append("procedure_codes"),
        "TicketIssued.procedure_codes: is required"),
    "a required field becomes optional": (
        lambda now: now["TicketIssued"]["required"].remove("unit"),
        "TicketIssued.unit: is no longer promised"),
    "a type is narrowed": (
        _set("TicketCalled", "properties", "wait_seconds", "type", to="integer"),
        "TicketCalled.wait_seconds: type was 'number'"),
    "a type is widened": (
        _set("TicketCalled", "properties", "counter", "type", to="number"),
        "TicketCalled.counter: type was 'integer'"),
    "a field may now be null": (
        _set("TicketCalled", "properties", "number", to={"anyOf": NULLABLE}),
        "TicketCalled.number: may now be null"),
    "a field may no longer be null": (
        _set("QueueLoad", "properties", "forecast_wait_seconds", to={"type": "integer"}),
        "QueueLoad.forecast_wait_seconds: may no longer be null"),
    "a format changes": (
        _set("TicketCalled", "properties", "at", "format", to="date"),
        "TicketCalled.at: format was 'date-time'"),
    "a limit is drawn": (
        _set("TicketCalled", "properties", "number", "maxLength", to=4),
        "TicketCalled.number: maxLength was None"),
    "a default changes what old events say": (
        _set("DossierReceived", "properties", "components", "default", to=1),
        "DossierReceived.components: default was 0"),
    "a value is struck off": (
        _set(*_STATUS, to=[1, 2, 3]), "DossierReceived.status: may no longer be 4"),
    "free text is limited to values": (
        _set("TicketIssued", "properties", "channel", "enum", to=["kiosk", "web"]),
        "TicketIssued.channel: is limited to some values"),
    "a part of a part is renamed": (
        lambda now: now["ProcedureChanged"]["$defs"]["Component"]["properties"].pop("required"),
        "ProcedureChanged.versions[].components[].required: was removed"),
    "what a list holds changes": (
        _set("TicketIssued", "properties", "procedure_codes", "items", "type", to="integer"),
        "TicketIssued.procedure_codes[]: type was 'string'"),
    "an event moves to another topic": (
        _set("TicketIssued", "x-topic", to="queue.tickets.v2"), "TicketIssued: x-topic was"),
    "an event gets another key": (
        _set("TicketIssued", "x-key", to="ticket_id"), "TicketIssued: x-key was 'unit'"),
    "an event gets another producer": (
        _set("QueueLoad", "x-producer", to="gateway"), "QueueLoad: x-producer was 'queue'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKING)
def test_a_change_that_breaks_readers_is_found(what: str) -> None:
    change, words = BREAKING[what]
    now = deepcopy(published())
    change(now)  # type: ignore[no-untyped-call]
    found = list(breaking_changes(published(), now))
    assert any(finding.startswith(words) for finding in found), found


def _add_field(now: Schemas) -> None:
    now["TicketIssued"]["properties"]["language"] = {"type": "string", "default": "vi"}


def _add_field_to_a_part(now: Schemas) -> None:
    parts = now["ProcedureChanged"]["$defs"]
    parts["Component"]["properties"]["pages"] = {"type": "integer", "default": 1}


ADDING = {
    "a field with a default": _add_field,
    "such a field in a part": _add_field_to_a_part,
    "an event": lambda now: now.update(TicketSung=now["TicketIssued"]),
    "a value of an enumeration": lambda now: now["DossierReceived"]["$defs"]["DossierStatus"][
        "enum"
    ].append(11),
    "another explanation": _set("TicketIssued", "description", to="Somebody waits."),
    "another order": lambda now: now["TicketIssued"]["required"].reverse(),
}


@pytest.mark.parametrize("what", ADDING)
def test_an_addition_is_none(what: str) -> None:
    now = deepcopy(published())
    ADDING[what](now)  # type: ignore[no-untyped-call]
    assert now != published()
    assert list(breaking_changes(published(), now)) == []


def test_the_command_publishes_no_breaking_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "DOCS", tmp_path)
    monkeypatch.setattr(command, "EVENTS", tmp_path / "api" / "events")
    assert command.main() == 0
    assert (tmp_path / "events.md").exists()
    capsys.readouterr()
    assert command.main() == 0
    assert capsys.readouterr().out == ""  # nothing has changed

    schema = json.loads((tmp_path / "api/events/TicketIssued.json").read_text("utf-8"))
    schema["properties"]["colour"] = {"type": "string"}
    (tmp_path / "api/events/TicketIssued.json").write_text(json.dumps(schema), "utf-8")
    (tmp_path / "api/events/TicketSung.json").write_text("{}", "utf-8")
    assert command.main() == 1
    said = capsys.readouterr()
    assert "TicketIssued.colour: was removed or renamed" in said.err
    assert "TicketSung was published and is gone" in said.err
    assert said.out == ""
    assert "colour" in (tmp_path / "api/events/TicketIssued.json").read_text("utf-8")


# AsyncAPI -----------------------------------------------------------------------------------------


def test_the_asyncapi_document_is_valid_by_the_official_schema() -> None:
    if not OFFICIAL.exists():
        pytest.skip("the official schema comes from npm, which this machine lacks")
    official = json.loads(OFFICIAL.read_text("utf-8"))
    found = list(Draft7Validator(official).iter_errors(document()))
    assert found == []
    spoiled = document()
    spoiled["channels"]["queue.tickets.v1"]["bindings"]["kafka"]["partitions"] = "six"
    assert list(Draft7Validator(official).iter_errors(spoiled))


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for part in value.values() for ref in _references(part)]
    return [ref for part in value for ref in _references(part)] if isinstance(value, list) else []


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    whole = document()
    for reference in set(_references(whole)):
        place: Any = whole
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place, reference


def test_channels_are_topics_with_what_the_code_says_of_them() -> None:
    channels = document()["channels"]
    assert list(channels) == [topic.name for topic in FACTS]
    for topic in FACTS:
        kafka = channels[topic.name]["bindings"]["kafka"]
        assert kafka["partitions"] == topic.partitions
        compacted = kafka["topicConfiguration"]["cleanup.policy"] == ["compact"]
        assert compacted == topic.compacted
        for kind in on_topic(topic):
            assert kind.compacted == topic.compacted, kind


def test_every_message_has_the_headers_that_the_relay_writes() -> None:
    for name, message in document()["components"]["messages"].items():
        [example] = message["examples"]
        envelope = Envelope.of(example["headers"])
        assert envelope.type == name
        assert set(message["headers"]["properties"]) == set(envelope.headers())
        Draft7Validator(message["headers"]).validate(example["headers"])


def test_who_handles_and_who_follows_is_in_the_document() -> None:
    operations = document()["operations"]
    handling = operations["reporting.handles.queue.tickets.v1"]
    assert handling["action"] == "receive"
    assert {"$ref": "#/channels/queue.tickets.v1/messages/TicketIssued"} in handling["messages"]
    assert handling["bindings"]["kafka"]["groupId"]["enum"] == ["reporting"]
    assert operations["queue.announces.queue.tickets.v1"]["action"] == "send"
    for topic in TOPICS:
        assert f"gateway.follows.{topic}" in operations

"""The published schema of an event, and what would break those who rely on it."""

from collections.abc import Iterator, Mapping
from typing import Any

from libs.common.events import Event
from services.announced.events import announced, key_of

DRAFT = "https://json-schema.org/draft/2020-12/schema"

Schema = Mapping[str, Any]


def schemas() -> dict[str, dict[str, Any]]:
    """Give the schema of every event by its type."""
    return {kind.type_name(): schema_of(kind) for kind in announced()}


def schema_of(kind: type[Event]) -> dict[str, Any]:
    """Describe an event's body, as readers may rely on it since its first day.

    A field that has a default is not required: it was added later, and older events lack it.
    """
    body = open_ended(kind.model_json_schema(mode="validation"))
    body.pop("title")
    return {
        "$schema": DRAFT,
        "$id": f"urn:motcua:event:{kind.type_name()}",
        "title": kind.type_name(),
        "x-topic": kind.topic,
        "x-producer": kind.producer,
        "x-key": "/".join(key_of(kind)[0]),
        "x-compacted": kind.compacted,
        **body,
    }


def open_ended(schema: Any) -> Any:
    """Let a schema and its parts allow fields that come later: readers ignore them, always."""
    if isinstance(schema, dict):
        return {
            name: open_ended(part)
            for name, part in schema.items()
            if (name, part) != ("additionalProperties", False)
        }
    if isinstance(schema, list):
        return [open_ended(part) for part in schema]
    return schema


def breaking_changes(
    published: Mapping[str, Schema], present: Mapping[str, Schema]
) -> Iterator[str]:
    """Say what is not an addition: old events must stay readable, and new ones for old readers."""
    for name, old in published.items():
        if name not in present:
            yield f"{name} was published and is gone: events of it stand in the log for ever"
            continue
        yield from (f"{name}{change}" for change in _breaks(old, present[name]))


# Words that only explain. Everything else that two schemas say differently is a change.
_EXPLAINING = frozenset({"title", "description", "examples", "$schema", "$id", "$defs"})
_TAKEN_APART = frozenset({"properties", "required", "enum", "anyOf", "items", "$ref"})


def _breaks(old: Schema, new: Schema) -> Iterator[str]:
    yield from _Comparison(old.get("$defs", {}), new.get("$defs", {})).of(old, new, "")


class _Comparison:
    """Of one event's schema with the published one."""

    def __init__(self, old_parts: Mapping[str, Schema], new_parts: Mapping[str, Schema]) -> None:
        self._old_parts, self._new_parts = old_parts, new_parts
        self._seen: set[tuple[str, str]] = set()

    def of(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        """Compare two schemas that stand at the same place."""
        pair = (str(old.get("$ref")), str(new.get("$ref")))
        if "$ref" in old and "$ref" in new:
            if pair in self._seen:
                return
            self._seen.add(pair)
        old, new = self._whole(old, self._old_parts), self._whole(new, self._new_parts)
        for word in sorted({*old, *new} - _EXPLAINING - _TAKEN_APART):
            if old.get(word) != new.get(word):
                yield f"{place}: {word} was {old.get(word)!r} and is {new.get(word)!r}"
        yield from self._fields(old, new, place)
        yield from self._values(old, new, place)
        yield from self._alternatives(old, new, place)
        if "items" in old and "items" in new:
            yield from self.of(old["items"], new["items"], f"{place}[]")
        elif "items" in old or "items" in new:
            yield f"{place}: items are described on one side only"

    def _fields(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        before, now = old.get("properties", {}), new.get("properties", {})
        for name in before:
            if name not in now:
                yield f"{place}.{name}: was removed or renamed"
            else:
                yield from self.of(before[name], now[name], f"{place}.{name}")
        was, is_ = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(is_ - was):
            yield f"{place}.{name}: is required, and older events lack it: give it a default"
        for name in sorted((was - is_) & set(now)):
            yield f"{place}.{name}: is no longer promised, and readers rely on it"

    @staticmethod
    def _values(old: Schema, new: Schema, place: str) -> Iterator[str]:
        """Compare what a field may be; a value more is an addition, for readers come first."""
        if ("enum" in old) != ("enum" in new):
            yield f"{place}: {'is' if 'enum' in new else 'was'} limited to some values"
        elif gone := [value for value in old.get("enum", ()) if value not in new["enum"]]:
            yield f"{place}: may no longer be {', '.join(map(repr, gone))}"

    def _alternatives(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        before = {self._kind(part, self._old_parts): part for part in old.get("anyOf", ())}
        now = {self._kind(part, self._new_parts): part for part in new.get("anyOf", ())}
        for kind in [kind for kind in before if kind not in now]:
            yield f"{place}: may no longer be {kind}"
        for kind in [kind for kind in now if kind not in before]:
            yield f"{place}: may now be {kind}, which readers do not expect"
        for kind, part in before.items():
            if kind in now:
                yield from self.of(part, now[kind], place)

    def _kind(self, schema: Schema, parts: Mapping[str, Schema]) -> str:
        """Name an alternative by what readers tell it by."""
        whole = self._whole(schema, parts)
        return " ".join(str(whole[word]) for word in ("type", "format", "const") if word in whole)

    @staticmethod
    def _whole(schema: Schema, parts: Mapping[str, Schema]) -> Schema:
        """Put the part that a schema refers to in the place of the reference."""
        while "$ref" in schema:
            rest = {word: value for word, value in schema.items() if word != "$ref"}
            schema = {**parts[schema["$ref"].rpartition("/")[2]], **rest}
        return schema

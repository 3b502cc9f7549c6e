"""Whether the cluster knows every field: strict schemas of its versions and of operators."""

import json
import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import ValidationError
from referencing import Registry, Resource

from tests.deploy.custom import KINDS
from tests.deploy.manifests import City, Found, Manifest, title

VERSIONS = ("1.35", "1.36", "1.37")
"""Of Kubernetes: those that are maintained when this is written."""


def schemas(city: City) -> Found:
    """Every field is one that the cluster's versions know, and of the right type."""
    for one in city.manifests:
        name = title(one)
        if one["kind"] in KINDS:
            yield from (f"{name}: {words}" for words in _as_custom(one))
            continue
        yield from (f"{name}: {words}" for words in _as_ours(json.dumps(one)))


@cache
def _as_ours(text: str) -> list[str]:
    """Ask each version; once, because a build that was broken is still mostly the same."""
    one = json.loads(text)
    return [
        f"{version}: {error.json_path}: {error.message}"
        for version in VERSIONS
        for error in _validator(version, one["apiVersion"], one["kind"]).iter_errors(one)
    ]


def _as_custom(one: Manifest) -> Found:
    try:
        KINDS[one["kind"]].model_validate(one)
    except ValidationError as error:
        for entry in error.errors():
            yield f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}"


@cache
def _validator(version: str, api: str, kind: str) -> Draft202012Validator:
    """Give the package's own validator, which reads a megabyte for every question, once."""
    folder, registry = _definitions(version)
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = json.loads((folder / f"{kind.lower()}-{group}.json").read_text())
    return Draft202012Validator(schema, registry=registry)


@cache
def _definitions(version: str) -> tuple[Traversable, Registry[Any]]:
    everything = files("kubernetes_validate") / "kubernetes-json-schema"
    folder = everything / f"v{version}.0-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())
    return folder, (Resource.from_contents(definitions) @ Registry()).crawl()

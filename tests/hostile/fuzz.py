"""Schemathesis over the whole API: what its description allows and forbids, as several callers.

The library's own pytest plugin is not used: the city lives in the test's loop, and one account of
all calls is wanted.
"""

import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from libs.contracts.roles import RULES, Role
from tests.hostile.bodies import PREFERRED
from tests.support import bearer
from tests.system.walk import HERE

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
"""What every answer must hold to. Whether what the description allows is accepted is not asked: of
ids and states it knows nothing."""

REFUSALS: Final = [400, 401, 403, 404, 409, 413, 414, 415, 422, 431]
"""How something that the description forbids may end: also because it is somebody else's, or not
there, or not now."""

ENDLESS: Final = "/stream"
"""Live streams have no end; `tests/system/test_access.py` and `tests/gateway` call them."""


@dataclass
class Account:
    """What was called and how it ended."""

    operations: set[str] = field(default_factory=set)
    cases: Counter[str] = field(default_factory=Counter)
    """By mode."""
    statuses: Counter[str] = field(default_factory=Counter)
    """By class."""
    wrong: dict[str, str] = field(default_factory=dict)
    """By operation and kind of failure, the first of each."""

    def __str__(self) -> str:
        """Write it in a line."""
        cases = ", ".join(f"{number} {mode}" for mode, number in sorted(self.cases.items()))
        classes = ", ".join(f"{number} x {kind}" for kind, number in sorted(self.statuses.items()))
        return (
            f"schemathesis: {len(self.operations)} operations, {self.cases.total()} cases "
            f"({cases}): {classes}; {len(self.wrong)} failures"
        )


def fuzz(base: str, known: Mapping[str, str], *, examples: int, seed: int) -> Account:
    """Call every operation of a city with generated requests.

    `known` names objects that are there, by path parameter; half of the cases are for those.
    `examples` is how many each operation gets of what is allowed, and of what is not.
    """
    config = schemathesis.Config.from_dict(
        {"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}}
    )
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json", config=config)
    account = Account()
    with requests.Session() as session:
        session.trust_env = False
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), result
            operation = result.ok()
            if operation.path.endswith(ENDLESS):
                continue
            account.operations.add(operation.label)
            for mode in GenerationMode:
                _Play(base, session, operation, mode, known, account).run(examples, seed)
    return account


def _callers(method: str, path: str) -> list[Role]:
    """Name who calls: mostly the first that may, also a citizen and one who may not."""
    rule = RULES.get((method, path))
    may = rule.may if rule else dict.fromkeys(Role)
    refused = [role for role in PREFERRED if role not in may]
    first = next(role for role in PREFERRED if role in may)
    return [first, first, first, Role.nobody, *refused[:1]]


@dataclass
class _Play:
    base: str
    session: requests.Session
    operation: Any
    mode: GenerationMode
    known: Mapping[str, str]
    account: Account

    def run(self, examples: int, seed: int) -> None:
        label = self.operation.label
        callers = _callers(self.operation.method.upper(), self.operation.path)
        chance = random.Random(f"{seed} {label} {self.mode}")  # noqa: S311

        @seeded(chance.randrange(2**32))
        @settings(
            max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=self.operation.as_strategy(generation_mode=self.mode))
        def play(case: Any) -> None:
            self._call(case, chance.choice(callers), named=chance.random() < 0.5)

        # Where nothing is described, nothing is forbidden.
        with suppress(Unsatisfiable):
            play()

    def _call(self, case: Any, role: Role, *, named: bool) -> None:
        if named and case.path_parameters and not _is_wrong(case, ParameterLocation.PATH):
            for name in case.path_parameters.keys() & self.known.keys():
                case.path_parameters[name] = self.known[name]
        # Our token mends a header that was left out; what else is wrong may be what is ignored.
        mended = _is_wrong(case, ParameterLocation.HEADER) and "Authorization" not in case.headers
        checks = [c for c in CHECKS if not mended or c is not negative_data_rejection]
        headers = {} if role is Role.nobody else bearer(role, HERE)
        number = self.account.cases.total()
        headers["X-Forwarded-For"] = f"10.99.{number >> 8 & 255}.{number & 255}"
        answer = case.call(base_url=self.base, session=self.session, headers=headers, timeout=20)
        self.account.cases[self.mode.value] += 1
        self.account.statuses[f"{answer.status_code // 100}xx"] += 1
        try:
            case.validate_response(answer, checks=checks)
        except FailureGroup as group:
            for failure in group.exceptions:
                what = f"{case.operation.label} as {role}: {failure.title}"
                curl = case.as_curl_command()
                self.account.wrong.setdefault(what, f"{failure}\n{curl}")


def _is_wrong(case: Any, place: ParameterLocation) -> bool:
    """Tell whether a part of a generated request is not as the description wants it."""
    part = case.meta.components.get(place)
    return part is not None and bool(part.mode.is_negative)

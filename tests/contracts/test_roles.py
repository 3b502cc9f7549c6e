"""The table of who may do what, as people read it."""

from pathlib import Path

from libs.contracts.access import with_tables
from libs.contracts.roles import INCLUDES, RULES, SCOPES, Role


def test_the_document_shows_the_table_as_it_is() -> None:
    page = Path("docs/security.md")
    written = page.read_text("utf-8")
    assert with_tables(written) == written, f"run python -m libs.contracts.access {page}"


def test_every_scope_is_some_routes_and_held_by_somebody() -> None:
    assert {rule.scope for rule in RULES.values()} == set(SCOPES)
    assert all(SCOPES.values())


def test_who_includes_another_role_may_all_that_it_may() -> None:
    for role, included in INCLUDES.items():
        for other in included:
            for scope, may in SCOPES.items():
                assert other not in may or may[Role(role)] == may[Role(other)], scope


def test_operators_see_nothing_personal() -> None:
    for rule in RULES.values():
        if rule.personal:
            assert Role.ops not in rule.may
            assert Role.nobody not in rule.may

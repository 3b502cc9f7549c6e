"""Enforces the table of `libs.contracts.roles`, and writes it for people."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fastapi import Request

from libs.common.auth import Principal
from libs.common.problems import Forbidden, Problem, Unauthenticated
from libs.common.routes import Access, Ruling
from libs.contracts.directory import Directory, UnitNotActive, UnitSplit, UnknownUnit
from libs.contracts.following import directory_of
from libs.contracts.roles import INCLUDES, RULES, SCOPES, Reach, Role, Rule


class NotYourUnit(Forbidden):
    """The unit exists but is not yours."""


def guard(request: Request, principal: Principal, route: str) -> Ruling:
    """Rule on a call by the table: by role, and by the unit that its path or query names.

    Units that stand in a body, or that an object belongs to, are the route's own to check.
    """
    rule = RULES.get((request.method, route))
    if rule is None:
        return Ruling(Forbidden(f"no rule says who may {request.method} {route}"))
    reach = rule.may.get(principal.role)
    if reach is None:
        return Ruling(_refusal(rule, principal), rule.audited)
    if not (rule.audited or reach is Reach.own):
        return _LET_IN
    unit, foreign = None, None
    for name in _named_units(request):
        unit = _current(directory_of(request), name)
        if unit is not None and reach is Reach.own and unit not in principal.units:
            foreign = NotYourUnit(f"{unit} is not among your units")
            break
    return Ruling(foreign, rule.audited, unit)


ACCESS: Final = Access(
    guard, INCLUDES, RULES, foreign=NotYourUnit, with_keys=(Role.kiosk, Role.portal)
)
"""What every service's `main` names."""

_LET_IN: Final = Ruling()


def _refusal(rule: Rule, principal: Principal) -> Problem:
    who = " or ".join(rule.may)
    if principal.anonymous:
        return Unauthenticated(f"this needs a token with the role {who}")
    return Forbidden(f"the role {principal.role} may not do this; {who} may")


def _named_units(request: Request) -> Iterator[str]:
    if named := request.path_params.get("unit"):
        yield named
    if request.scope["query_string"]:  # most have none, and taking it apart costs
        yield from request.query_params.getlist("unit")


def _current(directory: Directory, name: str) -> str | None:
    """Give the unit that a name stands for; what stands for none, or several, is nobody's."""
    try:
        return directory.current(name).code
    except (UnknownUnit, UnitNotActive, UnitSplit):
        return None  # the route says so in its own words


# For people -----------------------------------------------------------------------------------

_BEGIN: Final = "<!-- begin: written by python -m libs.contracts.access docs/security.md -->\n"
_END: Final = "<!-- end -->\n"


def written() -> str:
    """Write the table in Markdown."""
    lines = [f"| scope | {' | '.join(Role)} |", "|---" * (len(Role) + 1) + "|"]
    for scope, may in SCOPES.items():
        lines.append(f"| `{scope}` | {' | '.join(may.get(role, '–') for role in Role)} |")
    lines += ["", "| route | scope | audited |", "|---|---|---|"]
    for (method, path), rule in RULES.items():
        audited = "as a personal read" if rule.personal else "yes" if rule.audited else ""
        lines.append(f"| `{method} {path}` | `{rule.scope}` | {audited} |")
    return "\n".join(lines) + "\n"


def with_tables(document: str) -> str:
    """Put the table, as it is now, between the two marks of a document."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{written()}\n{_END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_tables(page.read_text("utf-8")), "utf-8")

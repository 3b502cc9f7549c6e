"""The rule of competence: a line for each case, and where somebody lives is in none of them."""

import pytest

from libs.common.problems import Malformed
from libs.common.worktime import Limit
from libs.contracts.competence import NATIONAL_SYSTEM, competent_unit
from libs.contracts.directory import Directory, UnitNotActive, UnitSplit, UnknownUnit
from libs.contracts.registry import Level, ProcedureVersion, UnitChanged, UnitStatus
from tests.contracts.test_directory import CITY, NEW

HERE = "H29.1"


def procedure(
    level: Level, *, territorial: bool = False, department: str | None = None
) -> ProcedureVersion:
    """Make a procedure version."""
    return ProcedureVersion(
        valid_from=NEW, name="Khai sinh", field="Hộ tịch", competent_level=level,
        department=department, territorial=territorial, boundary_independent=True, same_day=False,
        limit=Limit(value=3, unit="working_day"),
    )  # fmt: skip


PLAIN = procedure(Level.commune)
LAND = procedure(Level.commune, territorial=True)
FINANCE = procedure(Level.province, department="H29.S01")
FINANCE_OF_LAND = procedure(Level.province, territorial=True, department="H29.S01")
PROVINCIAL = procedure(Level.province)
NATIONAL = procedure(Level.ministry)


@pytest.mark.parametrize(
    ("version", "subject", "expected"),
    [
        # Commune level, not territorial: who received decides, whatever the subject.
        (PLAIN, None, HERE),
        (PLAIN, "H29.2", HERE),
        (PLAIN, "H29.404", HERE),
        # Commune level, territorial: where the subject matter lies.
        (LAND, "H29.2", "H29.2"),
        (LAND, HERE, HERE),
        (LAND, "gso:26743", "H29.3"),
        (LAND, "000.00.01.H29", HERE),
        # … also by a code from before the merger.
        (LAND, "H29.C01.26731", HERE),
        (LAND, "gso:26731", HERE),
        (LAND, "gso:26740", "H29.2"),
        # Province level: the department, territorial or not; the province where none is named.
        (FINANCE, None, "H29.S01"),
        (FINANCE, "H29.2", "H29.S01"),
        (FINANCE_OF_LAND, None, "H29.S01"),
        (PROVINCIAL, None, "H29"),
        # Ministry: the national system.
        (NATIONAL, None, NATIONAL_SYSTEM),
        (NATIONAL, "H29.2", NATIONAL_SYSTEM),
    ],
)
def test_who_decides(version: ProcedureVersion, subject: str | None, expected: str) -> None:
    found = competent_unit(version, receiving=HERE, subject=subject, directory=CITY)
    assert found == expected


def test_a_territorial_procedure_without_its_subject_names_the_field() -> None:
    with pytest.raises(Malformed) as refused:
        competent_unit(LAND, receiving=HERE, subject=None, directory=CITY)
    assert [error["field"] for error in refused.value.errors or ()] == ["subject_unit"]
    assert refused.value.status == 422


@pytest.mark.parametrize(
    ("subject", "kind"),
    [("H29.404", UnknownUnit), ("gso:26737", UnitSplit), ("H29.7", UnitNotActive),
     ("H29.C02", UnitNotActive)],
)  # fmt: skip
def test_a_subject_that_names_no_one_unit_is_refused(subject: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        competent_unit(LAND, receiving=HERE, subject=subject, directory=CITY)


def test_the_city_is_no_place_where_a_subject_lies() -> None:
    whole = Directory()
    whole.put_unit(
        UnitChanged(code="H29", version=1, name="City", type="city", status=UnitStatus.active)
    )
    with pytest.raises(Malformed) as refused:
        competent_unit(LAND, receiving=HERE, subject="H29", directory=whole)
    assert [error["field"] for error in refused.value.errors or ()] == ["subject_unit"]

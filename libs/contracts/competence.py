"""Which unit is competent for a dossier: the procedure decides, never where somebody lives."""

from libs.common.problems import malformed_field
from libs.contracts.directory import Directory
from libs.contracts.registry import COMMUNE_TYPES, Level, ProcedureVersion
from libs.contracts.words import say

NATIONAL_SYSTEM = "national"
"""Stands for the ministry's own central system, which no unit of the city answers for."""


def competent_unit(
    procedure: ProcedureVersion, *, receiving: str, subject: str | None, directory: Directory
) -> str:
    """Give the code of the unit that decides.

    Commune level: the unit where the subject matter lies if the procedure is territorial, else the
    unit that received. Province level: the department. Ministry: the national system.

    Raises:
        Malformed: a territorial procedure came without its subject's unit.
    """
    if procedure.competent_level is Level.province:
        return procedure.department or receiving.partition(".")[0]
    if procedure.competent_level is Level.ministry:
        return NATIONAL_SYSTEM
    if not procedure.territorial:
        return receiving
    if subject is None:
        raise malformed_field(
            "subject_unit",
            say("this procedure is decided where its subject lies: name that ward or commune"),
        )
    place = directory.current(subject)
    if place.type not in COMMUNE_TYPES:
        raise malformed_field(
            "subject_unit", say("{code} is no ward, commune or special zone", code=place.code)
        )
    return place.code

"""Unit and dossier codes as types, and names brought to a form in which they can be searched."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

UNIT_CODE = re.compile(r"(?=.{3,35}\Z)[A-Y][0-9]{2}(\.[0-9A-Z]+)*\Z")
OTHER_SCHEME = re.compile(r"Z[0-9]{2}(\.[0-9A-Z]{1,32})?\Z")
DOSSIER_CODE = re.compile(
    r"(?P<unit>[A-Z0-9]+(?:\.[A-Z0-9]+)*)-(?P<date>\d{6}|\d{8})-(?P<seq>\d{4,7})\Z", re.ASCII
)
_UNIT_NAME = r"^(gso:[0-9]{2,5}|[0-9A-Z.]+)$"
PROCEDURE_CODE = re.compile(r"[1-9]\.\d{6}(\.\d{2})?(\.000\.00\.00\.[A-Z]\d{2})?\Z", re.ASCII)


def _unit_code(value: str) -> str:
    if not UNIT_CODE.match(value):
        raise ValueError(
            "not a unit code: groups of A-Z and 0-9 separated by dots, the first a letter A-Y and "
            "two digits, 3 to 35 characters in all, like H29.26734"
        )
    return value


def _dossier_code(value: str) -> str:
    try:
        parse_dossier_code(value)
    except ValueError:
        raise ValueError("not a dossier code: write it like H29.26734-261120-0001") from None
    return value


def _procedure_code(value: str) -> str:
    if not PROCEDURE_CODE.match(value):
        raise ValueError("not a procedure code: write it like 1.001193")
    return value


UnitCode = Annotated[
    str,
    AfterValidator(_unit_code),
    Field(json_schema_extra={"format": "unit-code", "examples": ["H29.26740"]}),
]
"""Identifier code of an agency (mã định danh, Decision 20/2020/QĐ-TTg): compared as a string."""

UnitName = Annotated[
    str,
    StringConstraints(min_length=3, max_length=40, pattern=_UNIT_NAME),
    Field(json_schema_extra={"examples": ["H29.26740"]}),
]
"""How a client may name a unit: current, closed or QCVN-102 code, or `gso:26734`."""

UnitQuery = Annotated[
    str,
    StringConstraints(min_length=3, max_length=40, pattern=_UNIT_NAME),
    Field(
        json_schema_extra={
            "examples": ["H29.26740"],
            "x-problems": [
                f"urn:motcua:problem:{kind}"
                for kind in ("unknown-unit", "unit-not-active", "unit-split")
            ],
        }
    ),
]
"""The same where one active unit is meant."""

ProcedureCode = Annotated[
    str,
    AfterValidator(_procedure_code),
    Field(json_schema_extra={"format": "procedure-code", "examples": ["2.000815"]}),
]
"""Code of an administrative procedure (mã thủ tục hành chính, TTHC)."""

DossierCode = Annotated[
    str,
    AfterValidator(_dossier_code),
    Field(json_schema_extra={"format": "dossier-code", "examples": ["H29.26740-261120-0001"]}),
]
"""Code of a dossier (mã hồ sơ): `<unit>-YYMMDD-NNNN`."""


@dataclass(frozen=True, slots=True)
class DossierNumber:
    """The parts of a dossier code: the competent unit, the local day, and the day's sequence."""

    unit: str
    day: date
    sequence: int

    def __str__(self) -> str:
        """Write the code; past 9999 the sequence grows a digit."""
        return f"{self.unit}-{self.day:%y%m%d}-{self.sequence:04d}"


def parse_dossier_code(code: str) -> DossierNumber:
    """Take a dossier code apart, tolerating the eight-digit date of older systems.

    Raises:
        ValueError: it is no dossier code, or names no day.
    """
    match = DOSSIER_CODE.match(code)
    if match is None:
        raise ValueError(f"{code!r} is not a dossier code")
    form = "%y%m%d" if len(match["date"]) == 6 else "%Y%m%d"
    day = datetime.strptime(match["date"], form).date()  # noqa: DTZ007  (a date has no zone)
    return DossierNumber(match["unit"], day, int(match["seq"]))


def level_of(code: str) -> int:
    """Count the groups of a unit code: 1 is a ministry or province."""
    return code.count(".") + 1


def parent_of(code: str) -> str | None:
    """Give the code of the unit above: all groups but the last."""
    return code.rpartition(".")[0] or None


def searchable(name: str) -> str:
    """Bring a name to lower case without accents, so that Hoà, Hòa and hoa are found alike."""
    bare = unicodedata.normalize("NFD", name.casefold().replace("đ", "d"))
    letters = "".join(c for c in bare if not unicodedata.combining(c))
    return " ".join(letters.split())

"""Codes of units, dossiers and procedures, and names that are found however they are written."""

import re
import unicodedata
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from libs.contracts.codes import (
    DossierCode,
    DossierNumber,
    ProcedureCode,
    UnitCode,
    UnitQuery,
    level_of,
    parent_of,
    parse_dossier_code,
    searchable,
)


class Coded(BaseModel):
    """Holds each kind of code."""

    unit: UnitCode | None = None
    query: UnitQuery | None = None
    dossier: DossierCode | None = None
    procedure: ProcedureCode | None = None


def taken(kind: str, code: str) -> bool:
    """Tell whether a code is taken."""
    try:
        value = getattr(Coded.model_validate({kind: code}), kind)
    except ValidationError:
        return False
    assert value == code, "codes are compared as strings and never changed"
    return True


ROOT = st.from_regex(r"[A-Y][0-9]{2}", fullmatch=True)
GROUP = st.from_regex(r"[0-9A-Z]{1,8}", fullmatch=True)
UNITS = st.builds(lambda root, groups: ".".join([root, *groups]), ROOT, st.lists(GROUP, max_size=3))


@given(UNITS)
def test_every_code_of_the_grammar_is_a_unit_code(code: str) -> None:
    assert taken("unit", code)
    assert taken("query", code)


@given(st.text(max_size=40))
def test_only_codes_of_the_grammar_are_unit_codes(text: str) -> None:
    groups = text.split(".")
    proper = (
        3 <= len(text) <= 35
        and re.fullmatch("[A-Y][0-9][0-9]", groups[0]) is not None
        and all(re.fullmatch("[0-9A-Z]+", group) for group in groups[1:])
    )
    assert taken("unit", text) is proper


@pytest.mark.parametrize(
    "code",
    ["", "H2", "Z29", "h29", "H29.", ".H29", "H29..1", "H29 ", " H29", "H29\n", "H29.a", "H29-1",
     "H290", "29", "H29.Đ1", "Ｈ29", "H２9", "H٢٩", "H29." + "1" * 32],
)  # fmt: skip
def test_what_is_not_quite_a_unit_code_is_refused(code: str) -> None:
    assert not taken("unit", code)


@pytest.mark.parametrize(
    ("query", "expected"),
    [("gso:26734", True), ("gso:79", True), ("H29.26734", True), ("000.00.29.H29", True),
     ("gso:", False), ("gso:1", False), ("gso:267345", False), ("gso:٢٦٧٣٤", False),
     ("GSO:26734", False), ("gso:26734\n", False), ("H29/1", False), ("H29%", False),
     ("..", False), ("A" * 41, False), ("H29\x00", False), ("H29;DROP", False)],
)  # fmt: skip
def test_how_a_client_may_name_a_unit(query: str, expected: bool) -> None:
    assert taken("query", query) is expected


@given(UNITS, GROUP)
def test_a_unit_below_another_is_one_level_deeper_and_knows_its_parent(
    code: str, group: str
) -> None:
    below = f"{code}.{group}"
    assert parent_of(below) == code
    assert level_of(below) == level_of(code) + 1
    root = code.split(".")[0]
    assert (level_of(root), parent_of(root)) == (1, None)


DAYS = st.dates(date(2000, 1, 1), date(2068, 12, 31))
SEQUENCES = st.integers(1, 9_999_999)


@given(UNITS, DAYS, SEQUENCES)
def test_a_dossier_code_can_be_taken_apart_and_put_together(
    unit: str, day: date, sequence: int
) -> None:
    number = DossierNumber(unit, day, sequence)
    assert parse_dossier_code(str(number)) == number
    assert taken("dossier", str(number))


@given(UNITS, DAYS, st.integers(1, 9999))
def test_the_eight_digit_date_of_older_systems_is_understood(
    unit: str, day: date, sequence: int
) -> None:
    assert parse_dossier_code(f"{unit}-{day:%Y%m%d}-{sequence:04d}").day == day


def test_past_9999_the_sequence_grows_a_digit() -> None:
    assert str(DossierNumber("H29.26734", date(2026, 11, 20), 9999)) == "H29.26734-261120-9999"
    assert str(DossierNumber("H29.26734", date(2026, 11, 20), 10000)) == "H29.26734-261120-10000"


@pytest.mark.parametrize(
    "code",
    ["", "H29", "H29-261120", "H29-261120-001", "H29-2611-0001", "H29-261120-00000001",
     "H29-261120-0001\n", "H29-٢٦١١٢٠-٠٠٠١", "H29-2611201-0001", "h29-261120-0001",
     "H29-261120-0001-1", "-261120-0001", "H29.-261120-0001"],
)  # fmt: skip
def test_what_is_not_quite_a_dossier_code_is_refused(code: str) -> None:
    assert not taken("dossier", code)
    with pytest.raises(ValueError, match="dossier code"):
        parse_dossier_code(code)


@pytest.mark.parametrize("code", ["H29-261332-0001", "H29-260231-0001", "H29-20261320-0001"])
def test_a_day_that_does_not_exist_names_no_dossier(code: str) -> None:
    assert not taken("dossier", code)
    with pytest.raises(ValueError):
        parse_dossier_code(code)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("1.001193", True), ("2.000815", True), ("1.001193.01", True),
     ("1.001193.000.00.00.H29", True), ("1.001193.01.000.00.00.H29", True), ("0.001193", False),
     ("1.00119", False), ("1.0011933", False), ("1-001193", False), ("1.٠٠١١٩٣", False),
     ("1.001193\n", False), ("1.001193.000.00.00.29", False), ("", False)],
)  # fmt: skip
def test_procedure_codes(code: str, expected: bool) -> None:
    assert taken("procedure", code) is expected


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Phường Hoà Hưng", "phuong hoa hung"), ("PHƯỜNG HÒA HƯNG", "phuong hoa hung"),
     ("Đặc khu Côn Đảo", "dac khu con dao"), ("  Xã\tBà   Điểm ", "xa ba diem"),
     ("Thuỷ", "thuy"), ("Thủy", "thuy"), ("", ""), ("26734", "26734")],
)  # fmt: skip
def test_accents_tone_placement_case_and_spaces_do_not_matter(name: str, expected: str) -> None:
    assert searchable(name) == expected


LETTERS = (
    "aàáảãạăằắẳẵặâầấẩẫậbcdđeèéẻẽẹêềếểễệghiìíỉĩịklmnoòóỏõọôồốổỗộơờớởỡợpqrstuùúủũụưừứửữựvxyỳýỷỹỵ "
)


@given(st.text(LETTERS + LETTERS.upper(), max_size=30))
def test_a_vietnamese_name_is_found_in_either_unicode_form(name: str) -> None:
    found = searchable(name)
    assert found.isascii()
    assert found == searchable(unicodedata.normalize("NFD", name))
    assert found == searchable(name.upper()) == searchable(found)


@given(st.text())
def test_any_text_can_be_searched_for(name: str) -> None:
    assert "  " not in searchable(name)

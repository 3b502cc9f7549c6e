"""Numbers and addresses of applicants: their form, and whether they can be somebody's.

A refusal says what is expected and never repeats the value: problems are shown, logged and sent on.
"""

import re
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from services.intake.words import say

OLD_PROVINCES = frozenset((
    1, 2, 4, 6, 8, 10, 11, 12, 14, 15, 17, 19, 20, 22, 24, 25, 26, 27, 30, 31, 33, 34, 35,
    36, 37, 38, 40, 42, 44, 45, 46, 48, 49, 51, 52, 54, 56, 58, 60, 62, 64, 66, 67, 68, 70,
    72, 74, 75, 77, 79, 80, 82, 83, 84, 86, 87, 89, 91, 92, 93, 94, 95, 96,
))  # fmt: skip
"""The 63 provinces before July 2025, which personal ID numbers keep; from 100 on they name the
country of a birth registered abroad."""

_ID_NUMBER = re.compile(r"[0-9]{12}\Z")
_TAX_NUMBER = re.compile(r"([0-9]{10})(?:-?([0-9]{3}))?\Z")
_TAX_WEIGHTS = (31, 29, 23, 19, 17, 13, 7, 5, 3)
_PHONE = re.compile(r"(?:\+?84|0084|0)([35789][0-9]{8}|2[0-9]{9})\Z")
_EMAIL = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}\Z"
)


def id_number(value: str) -> str:
    """Check the form of a personal ID number (số định danh cá nhân): 12 digits, no check digit.

    Raises:
        ValueError: it is not 12 digits, or begins with no place of birth registration.
    """
    if not _ID_NUMBER.match(value):
        raise ValueError(say("a personal ID number has 12 digits"))
    if value[0] == "0" and int(value[:3]) not in OLD_PROVINCES:
        raise ValueError(say("its first three digits name no province or country"))
    return value


def birth_year(number: str) -> int:
    """Read the year of birth: the fourth digit holds century and sex (0 and 1: 1900-1999)."""
    return 1900 + int(number[3]) // 2 * 100 + int(number[4:6])


def check_born(number: str, today: date) -> None:
    """Refuse the ID number of somebody who is not born yet.

    Raises:
        ValueError: its fourth to sixth digits name a year to come.
    """
    if birth_year(number) > today.year:
        raise ValueError(say("its fourth to sixth digits name a year of birth that has not come"))


def tax_number(value: str) -> str:
    """Check a tax number (mã số thuế): 10 digits, the last a check digit, or 13 for a branch.

    The check digit is 10 minus the weighted sum of the first nine modulo 11 (as in
    `stdnum.vn.mst`). A branch is written with or without its hyphen and kept with it.

    Raises:
        ValueError: the form or the check digit is wrong.
    """
    match = _TAX_NUMBER.match(value)
    if match is None:
        raise ValueError(say("a tax number has 10 digits, or 13 for a branch, like 0314409058-002"))
    number, branch = match.groups()
    total = sum(weight * int(digit) for weight, digit in zip(_TAX_WEIGHTS, number, strict=False))
    if number[2:9] == "0000000" or 10 - total % 11 != int(number[9]) or branch == "000":
        raise ValueError(say("its check digit is wrong: read the number again"))
    return f"{number}-{branch}" if branch else number


def phone(value: str) -> str:
    """Bring a Vietnamese telephone number to its domestic form, 0 and nine or ten digits.

    Raises:
        ValueError: it is no mobile or landline number of Viet Nam.
    """
    match = _PHONE.match(re.sub(r"[\s.()-]", "", value))
    if match is None:
        raise ValueError(say("not a telephone number of Viet Nam: 10 or 11 digits, the first a 0"))
    return "0" + match[1]


def email(value: str) -> str:
    """Check the shape of an e-mail address.

    Raises:
        ValueError: it has none.
    """
    if not _EMAIL.match(value) or ".." in value:
        raise ValueError(say("not an e-mail address: write it like ten@example.vn"))
    return value


_Short = StringConstraints(strip_whitespace=True, max_length=40)

IdNumber = Annotated[str, _Short, AfterValidator(id_number)]
"""Personal ID number of a citizen, 12 digits."""

TaxNumber = Annotated[str, _Short, AfterValidator(tax_number)]
"""Tax number of an organisation."""

Phone = Annotated[str, _Short, AfterValidator(phone)]
"""Telephone number, kept in domestic form."""

Email = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=254), AfterValidator(email)
]
"""E-mail address."""

"""Numbers and addresses of applicants, without a database."""

from datetime import date

import pytest

from services.intake import applicants


@pytest.mark.parametrize(
    ("number", "year"),
    [
        ("079190012345", 1990),
        ("001099012345", 1999),
        ("096201012345", 2001),
        ("200326012345", 2026),
    ],
)
def test_an_id_number_tells_the_year_of_birth(number: str, year: int) -> None:
    assert applicants.birth_year(applicants.id_number(number)) == year
    applicants.check_born(number, date(2026, 11, 9))


@pytest.mark.parametrize(
    "number", ["", "07919001234", "0791900123456", "07919001234A", "000190012345", "003190012345",
               "٠٧٩١٩٠٠١٢٣٤٥"]
)  # fmt: skip
def test_what_is_no_id_number_is_refused(number: str) -> None:
    with pytest.raises(ValueError) as refusal:
        applicants.id_number(number)
    assert not number or number not in str(refusal.value)


@pytest.mark.parametrize("number", ["079227012345", "079427012345"])
def test_nobody_is_born_in_a_year_to_come(number: str) -> None:
    with pytest.raises(ValueError):
        applicants.check_born(number, date(2026, 11, 9))


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("0100233488", "0100233488"),
        ("0314409058-002", "0314409058-002"),
        ("0314409058002", "0314409058-002"),
    ],
)
def test_a_tax_number_is_kept_with_the_hyphen_of_a_branch(written: str, kept: str) -> None:
    assert applicants.tax_number(written) == kept


@pytest.mark.parametrize(
    "number", ["0100233480", "0314409058-000", "031440905", "0314409058-02", "0100000000", "MST"]
)
def test_what_is_no_tax_number_is_refused(number: str) -> None:
    with pytest.raises(ValueError):
        applicants.tax_number(number)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("0901234567", "0901234567"),
        ("+84 901 234 567", "0901234567"),
        ("0084-901.234.567", "0901234567"),
        ("(028) 3829 1234", "02838291234"),
    ],
)
def test_a_phone_is_kept_in_domestic_form(written: str, kept: str) -> None:
    assert applicants.phone(written) == kept


@pytest.mark.parametrize("number", ["1022", "0123456789", "+1 202 555 0123", "090123456", "call"])
def test_what_is_no_persons_phone_is_refused(number: str) -> None:
    with pytest.raises(ValueError):
        applicants.phone(number)


@pytest.mark.parametrize("address", ["a@b.vn", "ten.ho+tag@co-quan.gov.vn"])
def test_an_email_address_is_taken(address: str) -> None:
    assert applicants.email(address) == address


@pytest.mark.parametrize("address", ["a", "a@b", "a b@c.vn", "a@-b.vn", "a..b@c.vn", "a@b.vn\n"])
def test_what_is_no_email_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError):
        applicants.email(address)

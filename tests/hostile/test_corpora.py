"""Hostile corpora against the whole city: each is refused as the contract says, or has its effect
and no other; `python -m tests.hostile` sends all of what a part is sent of here."""

import pytest

from tests.hostile.families import PLAYED, REFUSED, attack
from tests.hostile.house import House
from tests.hostile.verdict import Tally


@pytest.mark.parametrize("family", [*REFUSED, *PLAYED])
async def test_what_is_hostile_is_refused_in_words_and_changes_nothing(
    house: House, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally()
    await attack(house, family, tally, short=True)
    with capsys.disabled():
        print(f"\n{tally.line(family)}")
    assert tally.total > 20
    assert not tally.wrong, "\n".join(tally.wrong[:20])

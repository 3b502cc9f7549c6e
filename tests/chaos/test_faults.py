"""The city kills itself between every two steps of outbox, relay, bus, handler and inbox."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.common import faults
from tests.chaos.forms import Form
from tests.chaos.runs import reach_every_fault
from tests.support import reachable_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty data folder."""
    with reachable_folder() as folder:
        yield folder


@pytest.mark.system
async def test_a_crash_between_any_two_steps_loses_nothing_and_doubles_nothing(
    folder: Path,
) -> None:
    form = Form.short()
    outcome = await reach_every_fault(folder, seed=form.seed, check_each=form.check_each_fault)
    print(outcome)
    assert outcome.findings.all() == []
    assert set(outcome.kills) == set(faults.POINTS)


def test_every_point_stands_in_the_code_once_and_those_of_the_bus_in_each_carrier() -> None:
    libs = Path(faults.__file__).parents[1]
    code = "".join(path.read_text("utf-8") for path in sorted(libs.rglob("*.py")))
    found = Counter(re.findall(r'faults\.reach\("([a-z.]+)"\)', code))
    assert found == {point: 2 if point.startswith("bus.") else 1 for point in faults.POINTS}


def test_a_setting_names_points_and_passings() -> None:
    assert faults.parse("relay.sent:3, inbox.claimed") == {"relay.sent": 3, "inbox.claimed": 1}


@pytest.mark.parametrize("setting", ["relay.lost", "relay.sent:0", "relay.sent:often", ","])
def test_a_setting_that_names_no_point_or_passing_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="MOTCUA_FAULT"):
        faults.parse(setting)


def test_without_the_setting_no_point_does_anything() -> None:
    faults.arm(None)
    for point in faults.POINTS:
        faults.reach(point)

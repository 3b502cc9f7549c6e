"""The embedded city, its server, or both are killed under load; nothing acknowledged is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.forms import Form
from tests.chaos.runs import Outcome, kill_embedded
from tests.support import reachable_folder

pytestmark = pytest.mark.system


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty data folder."""
    with reachable_folder() as folder:
        yield folder


def accepted(outcome: Outcome) -> None:
    """Print the counts; nothing may be wrong."""
    print(outcome)
    assert outcome.findings.all() == []


async def test_a_city_killed_again_and_again_equals_what_it_acknowledged(folder: Path) -> None:
    form = Form.short()
    outcome = await kill_embedded(folder, form.embedded, seed=form.seed)
    accepted(outcome)
    assert outcome.kills.total() == len(form.embedded)

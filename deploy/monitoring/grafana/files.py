"""The files that are made from code, and what stands in them."""

import json
from pathlib import Path
from typing import Final

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.monitoring.grafana.alerting import rules
from deploy.monitoring.grafana.boards import BOARDS

FOLDER: Final = Path(__file__).parent


def files() -> dict[str, str]:
    """Give every generated file's text by its path in this folder."""
    boards = {f"dashboards/{name}.json": _json(make().build()) for name, make in BOARDS.items()}
    return boards | {"provisioning/alerting/rules.yaml": _MADE + _yaml(rules())}


_MADE: Final = (
    "# Made from ../../../rules by `python -m deploy.monitoring.grafana`: change it there.\n"
)


def _json(value: object) -> str:
    return json.dumps(value, cls=JSONEncoder, ensure_ascii=False, indent=2) + "\n"


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=1000)

"""`make contracts`: write the documents, unless that would publish a change that breaks readers."""

import json
import sys
from pathlib import Path
from typing import Any

from services.announced import problems
from services.announced.asyncapi import document
from services.announced.calls import description
from services.announced.catalogue import page
from services.announced.schemas import breaking_changes, schemas

DOCS = Path(__file__).parents[2] / "docs"
EVENTS = DOCS / "api" / "events"


def documents() -> dict[Path, str]:
    """Give every document's text by the place where it belongs."""
    return {
        **{EVENTS / f"{name}.json": _json(schema) for name, schema in schemas().items()},
        DOCS / "api" / "asyncapi.json": _json(document()),
        DOCS / "events.md": page(),
        DOCS / "api" / "openapi.json": _json(description()),
        DOCS / "api" / "problems.md": problems.page(),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def published() -> dict[str, Any]:
    """Read the schemas that were published last."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in EVENTS.glob("*.json")}


def main() -> int:
    """Write what has changed and say so; 1 where a change is not an addition."""
    if breaks := list(breaking_changes(published(), schemas())):
        print("not published, for it would break those who rely on these events:", file=sys.stderr)
        print("\n".join(f"  {change}" for change in breaks), file=sys.stderr)
        print("Announce a new type instead, or use a new topic (…v2).", file=sys.stderr)
        return 1
    EVENTS.mkdir(parents=True, exist_ok=True)
    for path, text in documents().items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a scrape costs: `python -m tests.bench.scrape`.

Starts the queue alone and then the whole city in one process, each with the 168 units, calls every
GET of its description so that routes have their children, and times `/metrics`.
"""

import time
from contextlib import AbstractContextManager
from statistics import quantiles

import httpx

from tests.bench.streams import queue_alone
from tests.support import reachable_folder
from tests.system.city import City, embedded

SCRAPES = 200


def main() -> None:
    """Print the table."""
    print("| process | lines | kB | P50 | P99 |\n|---|---:|---:|---:|---:|")
    for name, start in (("the queue", queue_alone), ("the whole city", embedded)):
        with reachable_folder() as folder:
            _measure(name, start(folder))


def _measure(name: str, starting: AbstractContextManager[City]) -> None:
    with starting as city, city.client() as client:
        _call_everything(client)
        took = []
        for _ in range(SCRAPES):
            begun = time.perf_counter()
            text = client.get("/metrics").text
            took.append(1000 * (time.perf_counter() - begun))
        cuts = quantiles(took, n=100)
        lines = text.count("\n")
        print(f"| {name} | {lines} | {len(text) // 1000} | {cuts[49]:.1f} ms | {cuts[98]:.1f} ms |")


def _call_everything(client: httpx.Client) -> None:
    for path, calls in client.get("/openapi.json").json()["paths"].items():
        if "get" in calls and not path.endswith("/stream"):
            client.get(path.replace("{", "").replace("}", ""))


if __name__ == "__main__":
    main()

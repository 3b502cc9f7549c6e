"""From a breach to the message that tells of it: `python -m tests.bench.alert [--rounds 6]`.

Starts a city on a fast clock and the real Prometheus and Alertmanager over it, as `deploy/monitoring`
deploys them (`--every 1s`: at such intervals instead). Each round drives a centre past its promise,
waits for the webhook, calls the person and waits for the end of the alert.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from tests.support import reachable_folder
from tests.system.alerting import Pace, Watch, watching
from tests.system.city import City, embedded, key

ALERT, PROMISE = "MotcuaWaitBreached", 1200


def main() -> None:
    """Play the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--speed", type=float, default=120, help="of the city's clock")
    parser.add_argument("--every", help="how often Prometheus looks; unset: as deployed")
    options = parser.parse_args()
    clock = f"2026-11-16T08:00+07:00,x{options.speed},{time.time()}"
    with (
        reachable_folder() as data,
        TemporaryDirectory() as folder,
        embedded(data, clock=clock, hours="demo") as city,
        watching(
            city.base.removeprefix("http://"),
            Path(folder),
            speed=options.speed,
            every=options.every,
        ) as watch,
        city.client() as client,
    ):
        units = [unit["code"] for unit in client.get("/v1/units").json()["items"]]
        took = [_round(city, client, watch, unit) for unit in units[: options.rounds]]
    print("| seconds | least | median | most |\n|---|---:|---:|---:|")
    _line("breach → webhook", [told for told, _ in took])
    _line("call → webhook told that it is over", [over for _, over in took])


def _round(city: City, client: httpx.Client, watch: Watch, unit: str) -> tuple[float, float]:
    """Break a centre's promise and keep it again; give how long each took to be told."""
    since = len(watch.messages)
    counter, officer = f"/v1/units/{unit}/counters/1", city.bearer("officer", unit)
    client.put(counter, json={"state": "open"}, headers=officer).raise_for_status()
    wish = {"unit": unit, "channel": "web"}
    ticket = client.post("/v1/tickets", json=wish, headers=key()).raise_for_status().json()
    breach = Pace.of(client).wall(ticket["issued_at"], PROMISE)
    firing = watch.wait(ALERT, "firing", unit, within=180, since=since)
    called = time.time()
    client.post(f"{counter}/call-next", headers=officer | key()).raise_for_status()
    resolved = watch.wait(ALERT, "resolved", unit, within=180, since=since)
    # Nothing of this round may be told in the next one's message.
    for step in ("start", "finish"):
        client.post(f"/v1/tickets/{ticket['id']}/{step}", headers=officer | key())
    client.put(counter, json={"state": "closed"}, headers=officer)
    return firing.at - breach, resolved.at - called


def _line(what: str, seconds: Sequence[float]) -> None:
    print(f"| {what} | {min(seconds):.1f} | {median(seconds):.1f} | {max(seconds):.1f} |")


if __name__ == "__main__":
    main()

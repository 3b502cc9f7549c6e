"""The ticket loop in one unit: issue, call-next, start, finish, over HTTP with a key to each call.

`python -m tests.bench.loop` prints the tables. Each way to the queue plays by turns with what the
same machine gives for next to nothing (`floor.py`). Numbers given twice and people called twice are
counted; with one of either it ends with 1.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import uvloop
from rich.progress import Progress

from libs.common.auth import DevelopmentIssuer
from libs.common.observability import configure_logging
from tests.bench.houses import House, Play, Played, Way, apart, embedded, pgbench, processor_seconds
from tests.bench.wire import Line

UNIT: Final = "H29.26740"
WISH: Final = json.dumps({"unit": UNIT, "channel": "kiosk"}).encode()
JSON: Final = b"Content-Type: application/json\r\n"
HOUSES: Final = {
    "embedded": lambda clients: embedded(clients),
    "one": lambda clients: apart(clients, 1),
    "two": lambda clients: apart(clients, 2),
}


@dataclass(frozen=True)
class Desk:
    """A client: an officer at a counter of its own, and the kiosk that sends people there."""

    counter: str
    officer: bytes
    kiosk: bytes

    @classmethod
    def at(cls, number: int, data: Path) -> "Desk":
        """Sign the tokens of a counter's officer and kiosk."""
        officer, kiosk = (shown(data, role, number) for role in ("officer", "kiosk"))
        return cls(f"/v1/units/{UNIT}/counters/{number}", officer, kiosk)


def shown(data: Path, role: str, number: int) -> bytes:
    """Write the headers of who calls."""
    token = DevelopmentIssuer(data).token(role, subject=f"{role}-{number}", units=[UNIT])
    return b"Authorization: Bearer %b\r\n" % token.encode() + JSON


class Account:
    """What was given to whom: every number and every call must be somebody's alone."""

    def __init__(self) -> None:
        """Begin with none."""
        self.numbers: Counter[str] = Counter()
        self.called: Counter[str] = Counter()

    @property
    def twice(self) -> tuple[int, int]:
        """Count numbers given twice, and people called twice."""
        numbers, called = (
            sum(count - 1 for count in counted.values()) for counted in (self.numbers, self.called)
        )
        return numbers, called


def visits(desks: list[Desk], account: Account) -> Play:
    """Give what plays the loop, an officer on each line."""

    async def play(lines: list[Line], seconds: float) -> Played:
        played = Played({step: [] for step in ("issue", "call-next", "start", "finish")})
        end = time.perf_counter() + seconds

        async def call(line: Line, step: str, path: str, head: bytes, body: bytes = b"") -> Any:
            begun = time.perf_counter()
            key = b"Idempotency-Key: %b\r\n" % str(uuid4()).encode()
            status, answer = await line.ask("POST", path, head + key, body)
            played.waits[step].append(time.perf_counter() - begun)
            assert status in (200, 201), (step, status, answer)
            return json.loads(answer)

        async def client(desk: Desk, line: Line) -> None:
            while time.perf_counter() < end:
                ticket = await call(line, "issue", "/v1/tickets", desk.kiosk, WISH)
                account.numbers[f"{ticket['business_day']} {ticket['number']}"] += 1
                called = await call(line, "call-next", f"{desk.counter}/call-next", desk.officer)
                account.called[called["id"]] += 1
                for step in ("start", "finish"):
                    await call(line, step, f"/v1/tickets/{called['id']}/{step}", desk.officer)

        await asyncio.gather(*map(client, desks, lines))
        return played

    return play


def inserts(path: str) -> Play:
    """Give what calls a bare route."""

    async def play(lines: list[Line], seconds: float) -> Played:
        played = Played({"insert": []})
        end = time.perf_counter() + seconds

        async def client(line: Line) -> None:
            while (begun := time.perf_counter()) < end:
                status, answer = await line.ask("POST", path, JSON, WISH)
                played.waits["insert"].append(time.perf_counter() - begun)
                assert status == 201, answer

        await asyncio.gather(*map(client, lines))
        return played

    return play


async def timed(way: Way, play: Awaitable[Played]) -> Played:
    """Play a round; note how long it took, and whom it kept busy."""
    pids = {name: listed() for name, listed in way.programs.items()}
    before = {name: processor_seconds(these) for name, these in pids.items()}
    own, begun = time.process_time(), time.perf_counter()
    played = await play
    played.seconds = time.perf_counter() - begun
    played.processor = {n: processor_seconds(these) - before[n] for n, these in pids.items()}
    played.processor["client"] = time.process_time() - own
    return played


async def open_counters(house: House, clients: int) -> None:
    """Let every client have a counter that calls everybody."""
    line = await Line.to(house.ways[0].ports[0])
    for number in range(1, clients + 1):
        head, body = shown(house.data, "manager", 0), b'{"state": "open", "series": ["A"]}'
        status, answer = await line.ask("PUT", Desk.at(number, house.data).counter, head, body)
        assert status == 200, answer
    line.close()


async def measure(
    house: House, clients: int, rounds: int, seconds: float, passed: Callable[[], None]
) -> Account:
    """Play all ways of a house by turns; the first round, of a second each, warms up."""
    await open_counters(house, clients)
    account = Account()
    desks = [Desk.at(number, house.data) for number in range(1, clients + 1)]
    for number in range(rounds + 1):
        for way in house.ways:
            play = visits(desks, account) if way.path is None else inserts(way.path)
            lines = [await Line.to(port) for port in way.ports]
            played = await timed(way, play(lines, seconds if number else 1))
            for line in lines:
                line.close()
            if number:
                way.rounds.append(played)
            passed()
    return account


def table(house: House) -> Iterator[str]:
    """Give a house's table: medians of the rounds and their extremes, waits of all calls."""
    yield "| way | calls/s | first call P50 / P99 | call-next P50 / P99 | µs of processor a call |"
    yield "|---|---:|---:|---:|---|"
    for way in house.ways:
        rates = sorted(played.calls / played.seconds for played in way.rounds)
        calls = sum(played.calls for played in way.rounds)
        spent = ", ".join(
            f"{name} {sum(played.processor[name] for played in way.rounds) / calls * 1e6:,.0f}"
            for name in way.rounds[0].processor
        )
        first, *others = way.rounds[0].waits
        yield (
            f"| {way.name} | {statistics.median(rates):,.0f} ({rates[0]:,.0f}–{rates[-1]:,.0f}) "
            f"| {waits(way, first)} | {waits(way, others[0]) if others else ''} | {spent} |"
        )


def waits(way: Way, step: str) -> str:
    """Tell the median and the 99th percentile of a call."""
    told = [wait for played in way.rounds for wait in played.waits[step]]
    hundredths = statistics.quantiles(told, n=100)
    return f"{hundredths[49] * 1e3:.1f} / {hundredths[98] * 1e3:.1f} ms"


def main() -> int:
    """Measure and print."""
    asked = argparse.ArgumentParser(prog="python -m tests.bench.loop", description=__doc__)
    asked.add_argument("--clients", type=int, default=16)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--seconds", type=float, default=8, help="how long a way plays in a round")
    asked.add_argument("--houses", default=",".join(HOUSES), help="of these, with commas")
    wanted = asked.parse_args()
    configure_logging("ERROR")
    print(
        f"{wanted.clients} clients at one unit, {wanted.rounds} rounds of {wanted.seconds:g} s, "
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}"
    )
    wrong = 0
    for name in wanted.houses.split(","):
        with HOUSES[name](wanted.clients) as house, Progress(transient=True) as shown_to_people:
            steps = (wanted.rounds + 1) * len(house.ways)
            bar = shown_to_people.add_task(house.name, total=steps)
            passed = lambda: shown_to_people.advance(bar)  # noqa: B023, E731
            run = measure(house, wanted.clients, wanted.rounds, wanted.seconds, passed)
            account = uvloop.run(run)
            floor = pgbench(house.url, wanted.clients, wanted.seconds)
        numbers, called = account.twice
        wrong += numbers + called
        print(f"\n{house.name}:", *table(house), sep="\n")
        visits_made = f"{account.numbers.total():,} visits"
        print(f"{visits_made}: {numbers} numbers given twice, {called} people called twice")
        if floor is not None:
            print(f"pgbench -N -M prepared, {wanted.clients} connections: {floor:,.0f} commits/s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

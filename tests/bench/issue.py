"""What handing a line's waits to a statement costs: `python -m tests.bench.issue`."""

import asyncio
from time import perf_counter, process_time
from typing import Final

import asyncpg

from libs.common.postgres import EmbeddedPostgres
from tests.support import reachable_folder

ROUNDS: Final = 3000

PICK: Final = """
SELECT waits[place][1], waits[place][2], waits[place][3]
FROM (SELECT $1::int[] AS waits) AS told,
    LATERAL (SELECT least($2::int + 1, array_length(waits, 1)) AS place) AS here
"""
"""As `statements.ISSUE` picks the wait of a place in the line."""


async def measure(url: str) -> None:
    """Print microseconds per statement, by the places in the line."""
    connection = await asyncpg.connect(url)
    try:
        statement = await connection.prepare(PICK)
        print("| places | microseconds | of them CPU here |\n|---:|---:|---:|")
        for places in (0, 10, 50, 250):
            waits = [[n, n, n] for n in range(places)] or None
            begun, cpu = perf_counter(), process_time()
            for _ in range(ROUNDS):
                await statement.fetchrow(waits, 3)
            wall, cpu = perf_counter() - begun, process_time() - cpu
            print(f"| {places or 'none'} | {1e6 * wall / ROUNDS:.0f} | {1e6 * cpu / ROUNDS:.0f} |")
    finally:
        await connection.close()


if __name__ == "__main__":
    with reachable_folder() as folder, EmbeddedPostgres(folder) as server:
        asyncio.run(measure(server.url))

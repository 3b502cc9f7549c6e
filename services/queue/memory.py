"""What the queue remembers of the registry, so that it can start while the bus is away."""

from collections.abc import Sequence

import asyncpg

from libs.common import fast_json
from libs.common.bus.base import Received

_KEEP = """
INSERT INTO known_states AS known (topic, key, version, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
ON CONFLICT (topic, key) DO UPDATE SET version = excluded.version, body = excluded.body
WHERE known.version < excluded.version
"""


class Remembered:
    """The registry's last states in the queue's own tables; all processes keep the same rows."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Keep them through a pool."""
        self._pool = pool

    async def recall(self) -> list[Received]:
        """Give what was kept, as records of the topics they came by."""
        rows = await self._pool.fetch("SELECT topic, key, body FROM known_states")
        return [Received(row["topic"], row["key"], row["body"].encode()) for row in rows]

    async def keep(self, records: Sequence[Received]) -> None:
        """Keep the newest state of each key."""
        newest: dict[tuple[str, str], tuple[int, str]] = {}
        for record in records:
            body = (record.value or b"").decode()
            state = (int(fast_json.loads(body)["version"]), body)
            name = (record.topic, record.key)
            newest[name] = max(state, newest.get(name, state))
        # In one order, so that two processes never wait for each other.
        names = sorted(newest)
        await self._pool.execute(
            _KEEP,
            [topic for topic, _ in names],
            [key for _, key in names],
            [newest[name][0] for name in names],
            [newest[name][1] for name in names],
        )

"""A real Kafka for the tests that are marked so: the one that is named, else one of our own."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from deploy.kafka import Broker, missing_tools
from tests.support import reachable_folder

REQUIRED = "MOTCUA_REQUIRE_KAFKA"
"""Set to 1, a machine without Java and Maven fails these tests instead of skipping them."""

_SETTINGS = {
    # Members that fall silent are given up soon, and compaction comes when a test asks for it.
    "group.min.session.timeout.ms": "500",
    "log.cleaner.backoff.ms": "50",
    "log.cleaner.dedupe.buffer.size": "2000000",
    # Hundreds of small topics: an index of 10 MB for each partition would be most of the disk.
    "log.index.size.max.bytes": "65536",
    "log.segment.delete.delay.ms": "1000",
    "transaction.state.log.num.partitions": "1",
    "offsets.topic.num.partitions": "1",
}
_JVM = ("-Xmx384m", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


@contextmanager
def own_broker(
    *,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    cluster: str | None = None,
    listener: str = "PLAINTEXT",
) -> Iterator[Broker]:
    """Run a broker that a test may kill, freeze and start again."""
    require_tools()
    told = _SETTINGS | dict(settings or {})
    with (
        reachable_folder() as folder,
        Broker(
            folder, port=port, settings=told, jvm=_JVM, cluster=cluster, listener=listener
        ) as broker,
    ):
        yield broker


@contextmanager
def shared_kafka() -> Iterator[str]:
    """Give the address of a Kafka that nobody stops: `MOTCUA_KAFKA_BOOTSTRAP`, or our own."""
    if named := os.environ.get("MOTCUA_KAFKA_BOOTSTRAP"):
        yield named
        return
    with own_broker() as broker:
        yield broker.bootstrap


def require_tools() -> None:
    """Skip a test that needs a broker where none can run, or fail it where that is required."""
    missing = missing_tools()
    if missing is None:
        return
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but {missing}")
    pytest.skip(missing)

"""How the brokers are reached, how long one waits for them, and what their errors are called."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    InvalidProducerEpoch,
    KafkaError,
    ProducerFenced,
)

from libs.common.bus.base import BusError, Fenced


@dataclass(frozen=True, slots=True)
class Connection:
    """The brokers' addresses and the bounds of every wait, in seconds."""

    bootstrap: str
    """`host:port`, several separated by commas."""
    name: str = "motcua"
    """What the brokers' logs call this client."""
    answer_seconds: float = 5.0
    """A question to the brokers."""
    send_seconds: float = 10.0
    """From the first record of a batch to the acknowledgement of all."""
    session_seconds: float = 10.0
    """A silent member of a group is given up after this time; its share goes to the others."""
    heartbeat_seconds: float = 1.0
    handling_seconds: float = 30.0
    """For how long a member may work on what it fetched before its share goes to the others."""
    look_seconds: float = 1.0
    """How often a reader looks for topics that were missing."""
    poll_seconds: float = 0.1
    """How long the brokers hold a request for records that are not there yet."""
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """aiokafka's own options for TLS and for the account that we are."""

    def options(self, request_seconds: float) -> dict[str, Any]:
        """Give what all of aiokafka's clients are opened with."""
        return {
            "bootstrap_servers": self.bootstrap,
            "client_id": self.name,
            "request_timeout_ms": milliseconds(request_seconds),
            "retry_backoff_ms": 100,
            **self.security,
        }

    def reader_options(self) -> dict[str, Any]:
        """Give what readers are opened with."""
        # A broker holds the answer to somebody who joins until all members have come.
        return self.options(self.handling_seconds + 10) | {
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            "fetch_max_wait_ms": milliseconds(self.poll_seconds),
            # A topic that was deleted and made anew has to be found again.
            "metadata_max_age_ms": milliseconds(self.look_seconds * 5),
        }


def milliseconds(seconds: float) -> int:
    """Write a time as Kafka's settings want it."""
    return int(seconds * 1000)


def as_bus_error(error: BaseException, doing: str) -> BusError | None:
    """Give an error of the client its name on our side, or None if it is a defect of ours."""
    if isinstance(error, BusError):
        return error
    if _is_or_comes_from(error, (ProducerFenced, InvalidProducerEpoch)):
        return Fenced(f"{doing}: another one of this name has been opened")
    if isinstance(error, (CommitFailedError, IllegalStateError)):
        return Fenced(f"{doing}: the group has given the share to another member")
    if isinstance(error, TimeoutError):
        return BusError(f"{doing}: Kafka does not answer")
    if isinstance(error, KafkaError):
        return BusError(f"{doing}: {error}")  # it names its kind itself
    if isinstance(error, OSError):
        return BusError(f"{doing}: {type(error).__name__}: {error}")
    return None


def _is_or_comes_from(error: BaseException | None, kinds: tuple[type[BaseException], ...]) -> bool:
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__
    return False


@contextmanager
def bus_errors(doing: str) -> Iterator[None]:
    """Let the client's errors out under their names on our side."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # It is not we who are cancelled, but a task of the client's that we waited for.
        raise BusError(f"{doing}: interrupted") from error
    except Exception as error:
        if (named := as_bus_error(error, doing)) is None or named is error:
            raise
        raise named from error


@asynccontextmanager
async def within(seconds: float, doing: str) -> AsyncIterator[None]:
    """Bound a wait, and let the client's errors out under their names on our side."""
    with bus_errors(doing):
        async with asyncio.timeout(seconds):
            yield

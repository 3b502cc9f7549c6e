"""Ends aiokafka's clients in bounded time, whether the brokers are there or not.

Their own `stop` waits for the brokers: a producer for what it has not sent yet, a member of a group
for an answer to its joining. Where that takes too long, the tasks they run are ended from outside;
this is the one place that looks into them.
"""

import asyncio
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

STOP_SECONDS = 3.0
"""How long a client may take to say goodbye; services stop within ten seconds."""


async def end_producer(producer: AIOKafkaProducer, *, in_doubt: bool) -> None:
    """Stop a producer; one that is in doubt does not wait for what it has in hand."""
    if in_doubt or not await _stopped(producer):
        producer._closed = True  # or it would warn that nobody has closed it
        accumulator = producer._message_accumulator
        await _abandon(producer.client, producer._sender, accumulator)
        batches = [batch for queue in accumulator._batches.values() for batch in queue]
        _overlook(producer._txn_manager.wait_for_transaction_end())
        for batch in batches:
            _overlook(batch._drain_waiter)


async def end_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer; a member leaves its group if the brokers hear of it."""
    if not await _stopped(consumer):
        await _abandon(consumer._client, consumer._coordinator, consumer._fetcher)


async def _stopped(client: Any) -> bool:
    # A task of its own: the client lets its own tasks' cancellation out, as if it were ours.
    stopping = asyncio.create_task(client.stop())
    try:
        await asyncio.wait([stopping], timeout=STOP_SECONDS)
        return stopping.done() and not stopping.cancelled() and stopping.exception() is None
    finally:
        stopping.cancel()


async def _abandon(connections: Any, *workers: object) -> None:
    """Cancel every task that runs a method of the workers, then close the connections."""
    tasks = [task for task in asyncio.all_tasks() if _worker_of(task) in workers]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with suppress(Exception):
        await connections.close()


def _worker_of(task: asyncio.Task[Any]) -> object:
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame.f_locals.get("self", frame) if frame else task


def _overlook(end: asyncio.Future[Any] | None) -> None:
    """Take note of an error that nobody waits for any more, or asyncio would log it."""
    if end is not None and end.done() and not end.cancelled():
        end.exception()

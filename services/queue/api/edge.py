"""What the queue's routes share: what they are handed, and the shapes more than one gives."""

from datetime import date, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
from fastapi import Depends, Path, Request
from fastapi.responses import Response

from libs.common.fields import LocalTime, Out
from libs.common.problems import Unavailable
from libs.contracts.codes import UnitQuery
from libs.contracts.following import Registry
from services.queue.load import Loads
from services.queue.policy import PriorityClass
from services.queue.streams import Streams

Channel = Literal["kiosk", "web", "counter", "portal"]
TicketStatus = Literal[
    "waiting", "called", "serving", "finished", "parked", "no_show", "cancelled", "transferred"
]
CounterState = Literal["open", "paused", "closed"]
CounterNumber = Annotated[int, Path(ge=1, le=99)]
Unit = Annotated[UnitQuery, Path(description="Current or older code, or `gso:26734`.")]


async def _hot(request: Request) -> asyncpg.Pool:
    return request.state.hot


async def _loads(request: Request) -> Loads:
    loads: Loads = request.state.loads
    return loads


async def _streams(request: Request, _: Registry) -> Streams:
    streams: Streams = request.state.streams
    if not streams.ready:
        raise Unavailable("the boards are being read; try again in a moment")
    return streams


async def _promise(request: Request) -> timedelta:
    return timedelta(seconds=request.state.settings.sla_seconds)


async def _wake_relay(request: Request) -> Any:
    return request.state.relay.wake


Hot = Annotated[asyncpg.Pool, Depends(_hot)]
LoadsNow = Annotated[Loads, Depends(_loads)]
LiveStreams = Annotated[Streams, Depends(_streams)]
Promise = Annotated[timedelta, Depends(_promise)]
Wake = Annotated[Any, Depends(_wake_relay)]


def json_answer(body: str | bytes, status: int = 200) -> Response:
    """Send JSON that is written already."""
    return Response(body, status_code=status, media_type="application/json")


class TicketOut(Out):
    """A ticket as its holder is answered; documentation of what `statements.ANSWER` writes."""

    id: UUID
    number: str
    unit: str
    series: str
    status: TicketStatus
    priority_class: PriorityClass
    channel: Channel
    procedure_codes: list[str]
    dossier_code: str | None
    business_day: date
    issued_at: LocalTime
    due_at: LocalTime
    counter: int | None
    called_at: LocalTime | None
    wait_seconds: float | None
    started_at: LocalTime | None
    ended_at: LocalTime | None
    version: int

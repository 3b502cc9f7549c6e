"""What the queue's routes share: what they are handed, and the shapes more than one gives."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
from fastapi import Depends, Path, Request
from fastapi.responses import Response
from pydantic import Field

from libs.common.auth import Principal
from libs.common.edge import Now
from libs.common.fields import In, LocalTime, Out
from libs.common.idempotency import Key, OptionalKey
from libs.common.problems import Unavailable
from libs.common.settings import Settings
from libs.contracts.codes import UnitQuery
from libs.contracts.following import Registry
from libs.contracts.queue import CancelCause
from services.queue import policy
from services.queue.domain import moves
from services.queue.domain.moves import Asked, Move
from services.queue.load import Loads
from services.queue.policy import PriorityClass
from services.queue.streams import Streams
from services.queue.words import say

Channel = Literal["kiosk", "web", "counter", "portal"]
TicketStatus = Literal[
    "waiting", "called", "serving", "finished", "parked", "no_show", "cancelled", "transferred"
]
CounterState = Literal["open", "paused", "closed"]
CounterNumber = Annotated[int, Path(ge=1, le=99)]
CounterInBody = Annotated[int, Field(ge=1, le=99)]
SeriesIn = Annotated[str, Field(pattern=r"^[A-Z]$")]
Unit = Annotated[UnitQuery, Path(description="Current or older code, or `gso:26734`.")]


async def _hot(request: Request) -> asyncpg.Pool:
    return request.state.hot


async def _loads(request: Request) -> Loads:
    loads: Loads = request.state.loads
    return loads


async def _streams(request: Request, _: Registry) -> Streams:
    streams: Streams = request.state.streams
    if not streams.ready:
        raise Unavailable(say("the boards are being read; try again in a moment"))
    return streams


async def _rules(request: Request) -> policy.Rules:
    rules: policy.Rules = request.state.rules
    return rules


async def _promise(request: Request) -> policy.Promise:
    rules: policy.Rules = request.state.rules
    return rules.promise


async def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


async def _wake_relay(request: Request) -> Any:
    return request.state.relay.wake


Hot = Annotated[asyncpg.Pool, Depends(_hot)]
LoadsNow = Annotated[Loads, Depends(_loads)]
LiveStreams = Annotated[Streams, Depends(_streams)]
RulesNow = Annotated[policy.Rules, Depends(_rules)]
Promise = Annotated[policy.Promise, Depends(_promise)]
SettingsNow = Annotated[Settings, Depends(_settings)]
Wake = Annotated[Any, Depends(_wake_relay)]


@dataclass(frozen=True, slots=True)
class Acting:
    """What a step of a ticket is taken with, whoever takes it."""

    pool: asyncpg.Pool
    rules: policy.Rules
    wake: Callable[[], None]
    now: datetime
    key: Key | None

    def asked(self, by: Principal) -> Asked:
        """Say who asks."""
        return Asked(by, self.now, self.rules, self.key)


async def _acting(pool: Hot, rules: RulesNow, wake: Wake, now: Now, key: OptionalKey) -> Acting:
    return Acting(pool, rules, wake, now, key)


Act = Annotated[Acting, Depends(_acting)]


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
    for_counter: int | None
    printed_at: LocalTime | None
    reissues: int
    cancel_cause: CancelCause | None
    transferred_from: UUID | None
    transferred_to: UUID | None
    version: int


class Step(In):
    """A step of a ticket; `counter`, when given, must be the one that called it."""

    counter: CounterInBody | None = None


async def move(
    step: Move, ticket_id: UUID, act: Acting, by: Principal, body: Step | None = None
) -> Response:
    """Take a step that needs to know no more than who takes it, and answer the ticket."""
    moved = await moves.move(
        act.pool, ticket_id, step, act.asked(by), counter=body.counter if body else None
    )
    act.wake()
    return json_answer(moved["body"])

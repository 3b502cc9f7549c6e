"""Small dependencies that routes of every service share."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from libs.common.clock import Clock


async def _clock(request: Request) -> Clock:
    clock: Clock = request.state.clock
    return clock


async def _now(clock: Annotated[Clock, Depends(_clock)]) -> datetime:
    return clock.now()


Now = Annotated[datetime, Depends(_now)]
"""The business instant of the request, aware, in UTC."""

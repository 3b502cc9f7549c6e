"""Reactions to other services' events: the registry has none, it is where facts begin."""

from libs.common.events import EventRouter

router = EventRouter()

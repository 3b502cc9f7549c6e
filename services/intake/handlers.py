"""Reactions to other services' events: none yet, because what intake needs of the registry is in
memory (`following_registry`) and nothing it stores depends on a ticket's fate."""

from libs.common.events import EventRouter

router = EventRouter()

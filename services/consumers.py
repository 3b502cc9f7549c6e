"""Who reads what: every service's handlers, and the topics that it keeps in memory."""

from collections.abc import Mapping

import services.intake.handlers
import services.queue.handlers
import services.registry.handlers
import services.reporting.handlers
from libs.common.events import EventRouter
from libs.contracts import directory
from libs.contracts.queue import QueueLoad
from libs.contracts.registry import ClientChanged
from services.queue.projection import TOPICS as BOARD_TOPICS

ROUTERS: Mapping[str, EventRouter] = {
    "registry": services.registry.handlers.router,
    "intake": services.intake.handlers.router,
    "queue": services.queue.handlers.router,
    "reporting": services.reporting.handlers.router,
}
"""Each event goes to one process of the service, which handles it with its database."""

FOLLOWED: Mapping[str, tuple[str, ...]] = {
    "registry": directory.TOPICS,
    "intake": directory.TOPICS,
    "queue": (*directory.TOPICS, *BOARD_TOPICS),
    "reporting": directory.TOPICS,
    "gateway": (*directory.TOPICS, QueueLoad.topic, ClientChanged.topic),
}
"""Every process of the service reads these from the first record; a test asks the running ones."""

"""Every topic as code, beside the events that travel on it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from libs.common.bus.base import Topic
from libs.common.dead_letters import DEAD_LETTER_SUFFIX
from libs.contracts import intake, queue, registry

FACTS = (
    Topic("registry.units.v1", compacted=registry.UnitChanged.compacted),
    Topic("registry.centres.v1", compacted=registry.CentreChanged.compacted),
    Topic("registry.procedures.v1", compacted=registry.ProcedureChanged.compacted),
    Topic("registry.calendar.v1", partitions=1, compacted=registry.CalendarDayChanged.compacted),
    Topic("registry.clients.v1", partitions=1, compacted=registry.ClientChanged.compacted),
    Topic(queue.TicketEvent.topic),
    Topic(queue.CounterChanged.topic, compacted=queue.CounterChanged.compacted),
    Topic(queue.AppointmentEvent.topic),
    Topic(queue.QueueLoad.topic, compacted=queue.QueueLoad.compacted),
    Topic(queue.WaitEvent.topic),
    Topic(queue.VisitEvent.topic),
    Topic(intake.DossierEvent.topic),
)


def all_topics(kept: timedelta | None = None) -> Iterator[Topic]:
    """List the topics of facts, each with its topic of dead letters.

    `kept` is for how long facts stay; None is for ever, which is what a rebuild needs. A compacted
    topic always keeps the last state of each key.
    """
    for topic in FACTS:
        yield topic if topic.compacted else replace(topic, kept=kept)
        # Keyed by group and event; a tombstone takes a letter that was replayed off the list.
        yield Topic(topic.name + DEAD_LETTER_SUFFIX, partitions=1, compacted=True)


NAMES = tuple(topic.name for topic in all_topics())

"""Routes of the queue, one module per thing that clients speak of."""

from services.queue.api import (
    appointments,
    boards,
    counters,
    kiosks,
    planning,
    steps,
    tickets,
    visits,
)

ROUTERS = (
    tickets.router,
    steps.router,
    counters.router,
    boards.router,
    planning.router,
    appointments.router,
    kiosks.router,
    visits.router,
)

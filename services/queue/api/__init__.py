"""Routes of the queue, one module per thing that clients speak of."""

from services.queue.api import appointments, boards, counters, kiosks, steps, tickets

ROUTERS = (
    tickets.router,
    steps.router,
    counters.router,
    boards.router,
    appointments.router,
    kiosks.router,
)

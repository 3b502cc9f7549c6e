"""Routes of the queue, one module per thing that clients speak of."""

from services.queue.api import appointments, boards, counters, kiosks, tickets

ROUTERS = (
    tickets.router,
    counters.router,
    boards.router,
    appointments.router,
    kiosks.router,
)

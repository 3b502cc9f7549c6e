"""Routes of the queue, one module per thing that clients speak of."""

from services.queue.api import boards, counters, steps, tickets

ROUTERS = (tickets.router, steps.router, counters.router, boards.router)

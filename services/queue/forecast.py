"""How long a newcomer will wait: people ahead, counters open, and how long visits take lately."""

from typing import Final

USUAL_SERVICE_SECONDS: Final = 480.0
"""What a visit is taken to last before a unit has figures of its own: 8 minutes."""

_WEIGHT_OF_USUAL: Final = 5


def mean_service(visits: int, total_seconds: float) -> float:
    """Give the mean length of a visit, drawn towards the usual one while few were seen."""
    usual = USUAL_SERVICE_SECONDS * _WEIGHT_OF_USUAL
    return (total_seconds + usual) / (visits + _WEIGHT_OF_USUAL)


def forecast_wait(
    *, waiting: int, open_counters: int, busy_counters: int, service_seconds: float
) -> int | None:
    """Give the expected wait of somebody who comes now, in seconds; None while nothing is open.

    A free counter and nobody waiting is no wait. Else counters free up every
    `service_seconds / open_counters`, and the newcomer is called at the one after those ahead.
    """
    if open_counters == 0:
        return None
    free = max(0, open_counters - busy_counters)
    ahead = waiting - free
    if ahead < 0:
        return 0
    return round((ahead + 1) * service_seconds / open_counters)

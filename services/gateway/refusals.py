"""What the door refuses for the sake of everybody else, and how often it did."""

from typing import Final

from prometheus_client import Counter

from libs.common.problems import Unavailable

REASONS: Final = (
    "anonymous-reads", "anonymous-writes", "wrong-credentials", "named",
    "head", "url", "body", "slow-head", "slow-body",
    "upstream-calls", "door-calls", "door-uploads", "door-streams", "address-streams", "circuit",
)  # fmt: skip

REFUSED: Final = Counter(
    "motcua_gateway_refused", "Calls that the door refused, by the limit they met.", ("reason",)
)
for _reason in REASONS:
    REFUSED.labels(_reason)


class Busy(Unavailable):
    """So many calls are under way that this one would only wait; come again in a moment."""


class CircuitOpen(Unavailable):
    """The service behind this address failed again and again and is left alone for a moment."""

"""What the door remembers of a service that fails: to leave it alone, and to send again seldom."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Final, NoReturn

import structlog
from prometheus_client import Counter, Gauge

from libs.common.settings import SERVICES
from services.gateway.refusals import REFUSED, CircuitOpen
from services.gateway.words import say

log = structlog.get_logger()

CIRCUIT_OPEN: Final = Gauge(
    "motcua_gateway_circuit_open", "1 while a service is left alone after failures.", ("upstream",)
)
RETRIES: Final = Counter(
    "motcua_gateway_retries", "Calls that were sent to a service again.", ("upstream",)
)
for _service in SERVICES:
    CIRCUIT_OPEN.labels(_service).set(0)
    RETRIES.labels(_service)


class Circuit:
    """Opens after failures in a row; then one call at a time tries the service, until one succeeds.

    A failure is a call that got no answer: no connection, none in time, one that broke off; or 502
    and 504, with which a proxy before the service says the same. Any other answer is a success: 500
    is a defect of one route, and who answers 503 has said itself when to come again.
    """

    def __init__(
        self,
        service: str,
        *,
        failures: int,
        seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how many failures open it, and for how many seconds until a trial."""
        self._service, self._most, self._seconds, self._now = service, failures, seconds, now
        self._failures = 0
        self._trial_at: float | None = None
        """While it is open: when somebody may try the service."""
        self._trying = False
        self._why = ""

    @contextmanager
    def attempt(self) -> Iterator["Attempt"]:
        """Let a call through, whose outcome is told to what this gives.

        Raises:
            CircuitOpen: the service is left alone.
        """
        trial = self._trial_at is not None
        if self._trial_at is not None:
            left = self._trial_at - self._now()
            if left > 0 or self._trying:
                self._refuse(left)
            self._trying = True
        try:
            yield Attempt(self, trial)
        finally:
            if trial:  # also when its caller left before there was an outcome
                self._trying = False

    def _refuse(self, left: float) -> NoReturn:
        REFUSED.labels("circuit").inc()
        raise CircuitOpen(
            say("the {service} service does not answer", service=self._service),
            retry_after=max(1, ceil(left)),
            service=self._service,
        )

    def succeeded(self) -> None:
        """Note that an answer has begun."""
        self._failures, self._trying = 0, False
        if self._trial_at is not None:
            self._trial_at = None
            CIRCUIT_OPEN.labels(self._service).set(0)
            log.info("circuit.closed", upstream=self._service)

    def failed(self, why: str, *, trial: bool) -> None:
        """Note that no answer came, or not the whole of it."""
        if self._trial_at is not None and not trial:
            return  # it was under way when the circuit opened, and says nothing new
        self._failures += 1
        if self._failures < self._most:
            return
        if self._trial_at is None:
            CIRCUIT_OPEN.labels(self._service).set(1)
            log.warning("circuit.open", upstream=self._service, failures=self._failures, error=why)
        self._why = why
        self._trial_at = self._now() + self._seconds

    @property
    def problem(self) -> str | None:
        """Say in words for an operator that the service is left alone, and why."""
        if self._trial_at is None:
            return None
        return f"left alone after {self._failures} calls without an answer ({self._why})"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call to a service."""

    _circuit: Circuit
    _trial: bool

    def answered(self, status: int) -> None:
        """An answer has begun."""
        if status in (502, 504):
            self.failed(str(status))
        else:
            self._circuit.succeeded()

    def failed(self, why: str) -> None:
        """No answer came, or not the whole of it."""
        self._circuit.failed(why, trial=self._trial)


class RetryBudget:
    """Lets a share of the calls be sent again: when all of them fail, repeats only add to it."""

    _most: Final = 10.0

    def __init__(self, share: float) -> None:
        """Start with a few in hand."""
        self._share = share
        self._left = self._most if share else 0.0

    def earn(self) -> None:
        """A call was sent for the first time."""
        self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Take a repeat out, if there is one."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

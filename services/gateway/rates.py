"""How often somebody may call: counted here, or in Redis where several doors count together."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Final

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage, Storage
from limits.aio.storage.base import SlidingWindowCounterSupport
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.storage.base import TimestampedSlidingWindow
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from libs.common.problems import TooManyRequests
from libs.common.settings import Settings
from libs.common.words import Words
from services.gateway.refusals import REFUSED
from services.gateway.words import say

log = structlog.get_logger()

_PATIENCE_SECONDS: Final = 0.25
"""How long Redis may take: longer would be felt by every caller."""

_ASKED_AGAIN_SECONDS: Final = 5.0


class Counters(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """Counts in this process, in constant time and bounded memory.

    The library's own storage looks through all it holds after every hit, to find what has expired:
    with ten thousand addresses each call would pay for all of them. Here a window that begins drops
    the oldest ones, which stand first.
    """

    STORAGE_SCHEME = None
    most = 200_000

    def __init__(self) -> None:
        """Know of no calls."""
        super().__init__()
        self._windows: dict[str, tuple[float, int]] = {}
        """By caller and window: until when it matters, and the calls in it."""

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count a call, unless it is one too many."""
        now = time.time()
        before, current = self.sliding_window_keys(key, expiry, now)
        past, count = self._count(before), self._count(current)
        rest = 1 - (now / expiry) % 1  # the part of the last window that is still within `expiry`
        if floor(past * rest + count) + amount > limit:
            return False
        if not count:
            self._make_room(now)
        self._windows[current] = (now + 2 * expiry, count + amount)
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Give calls and seconds left, of the last window and of this one."""
        now = time.time()
        before, current = self.sliding_window_keys(key, expiry, now)
        rest = (1 - (now / expiry) % 1) * expiry
        return self._count(before), rest, self._count(current), rest + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a caller."""
        for window in self.sliding_window_keys(key, expiry, time.time()):
            self._windows.pop(window, None)

    def _count(self, window: str) -> int:
        return self._windows.get(window, _EMPTY)[1]

    def _make_room(self, now: float) -> None:
        for _ in range(2):
            oldest = next(iter(self._windows), None)
            if oldest is None:
                return
            if self._windows[oldest][0] > now and len(self._windows) < self.most:
                return
            del self._windows[oldest]

    # What other strategies would need ------------------------------------------------------------

    @property
    def base_exceptions(self) -> type[Exception]:
        """Name what counting may raise."""
        return ValueError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count in one window without a past."""
        raise NotImplementedError

    async def get(self, key: str) -> int:
        """Give a window's calls."""
        return self._count(key)

    async def get_expiry(self, key: str) -> float:
        """Tell until when a window matters."""
        return self._windows.get(key, _EMPTY)[0]

    async def check(self) -> bool:
        """Tell that it works."""
        return True

    async def reset(self) -> int | None:
        """Forget everybody."""
        count = len(self._windows)
        self._windows.clear()
        return count

    async def clear(self, key: str) -> None:
        """Forget a window."""
        self._windows.pop(key, None)


_EMPTY: Final = (0.0, 0)


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, by name."""

    name: str
    item: RateLimitItem

    @property
    def seconds(self) -> int:
        """The time in which so many are allowed."""
        return int(self.item.get_expiry())


def _words(limit: str, quota: Words, wait: int) -> Words:
    match limit:
        case "anonymous-reads":
            return say(
                "calls without credentials that read are limited to {quota} for each address; "
                "come again in {wait} s",
                quota=quota,
                wait=wait,
            )
        case "anonymous-writes":
            return say(
                "calls without credentials that change something are limited to {quota} for each "
                "address; come again in {wait} s",
                quota=quota,
                wait=wait,
            )
        case "wrong-credentials":
            return say(
                "calls with wrong credentials are limited to {quota} for each address; "
                "come again in {wait} s",
                quota=quota,
                wait=wait,
            )
        case _:
            return say(
                "calls are limited to {quota} for each token's subject or API key; "
                "come again in {wait} s",
                quota=quota,
                wait=wait,
            )


class Rates:
    """Spends what each caller may call in a while."""

    def __init__(self, settings: Settings, shared: RedisStorage | None = None) -> None:
        """Take the limits, and where several doors count together."""
        told = {
            "anonymous-reads": settings.rate_anonymous_reads,
            "anonymous-writes": settings.rate_anonymous_writes,
            "wrong-credentials": settings.rate_wrong_credentials,
            "named": settings.named_rate,
        }
        self._limits = {
            name: Limit(name, parse(rate)) for name, rate in told.items() if rate != "none"
        }
        self._alone = SlidingWindowCounterRateLimiter(Counters())
        self._shared = SlidingWindowCounterRateLimiter(shared) if shared else None
        self._shared_from = 0.0
        """When Redis is asked (again), on the monotonic clock."""
        self.problem: str | None = None
        """Why this door counts alone although it should not."""

    async def spend(self, name: str, caller: str) -> None:
        """Count a call.

        Raises:
            TooManyRequests: it is one too many; the problem says which limit, and when to come.
        """
        limit = self._limits.get(name)
        if limit is not None and not await self._ask("hit", limit.item, caller):
            await self._refuse(limit, caller)

    async def check(self, name: str, caller: str) -> None:
        """Refuse as `spend` would, and count nothing."""
        limit = self._limits.get(name)
        if limit is not None and not await self._ask("test", limit.item, caller):
            await self._refuse(limit, caller)

    async def _ask(self, what: str, item: RateLimitItem, caller: str) -> Any:
        """Ask Redis; while it is away this door goes by what it has counted itself."""
        if self._shared is not None and time.monotonic() >= self._shared_from:
            if self.problem:  # one caller finds out whether it is back, not all of them
                self._shared_from = time.monotonic() + _ASKED_AGAIN_SECONDS
            try:
                answer = await getattr(self._shared, what)(item, caller)
            except (RedisError, OSError, TimeoutError) as error:
                self._counts_alone(type(error).__name__)
            else:
                self._counts_together()
                return answer
        return await getattr(self._alone, what)(item, caller)

    def _counts_alone(self, why: str) -> None:
        self._shared_from = time.monotonic() + _ASKED_AGAIN_SECONDS
        if self.problem is None:
            log.warning("rates.alone", error=why)
        self.problem = f"Redis does not answer ({why}): this gateway counts calls alone"

    def _counts_together(self) -> None:
        if self.problem is not None:
            log.info("rates.together")
            self.problem, self._shared_from = None, 0.0

    async def _refuse(self, limit: Limit, caller: str) -> None:
        stats = await self._ask("get_window_stats", limit.item, caller)
        wait = max(1, ceil(stats.reset_time - time.time()))
        quota = say("{amount} in {seconds} s", amount=limit.item.amount, seconds=limit.seconds)
        problem = TooManyRequests(
            _words(limit.name, quota, wait),
            retry_after=wait,
            limit=limit.name,
        )
        # https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (revision 11)
        problem.headers["RateLimit-Policy"] = (
            f'"{limit.name}";q={limit.item.amount};w={limit.seconds}'
        )
        problem.headers["RateLimit"] = f'"{limit.name}";r=0;t={wait}'
        REFUSED.labels(limit.name).inc()
        raise problem


@asynccontextmanager
async def counting(settings: Settings) -> AsyncIterator[Rates]:
    """Open what counts calls."""
    if settings.rate_store is None:
        yield Rates(settings)
        return
    # The client would try three times, seconds apart, while everybody waits.
    options: dict[str, Any] = {
        "socket_timeout": _PATIENCE_SECONDS,
        "socket_connect_timeout": _PATIENCE_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "implementation": "redispy",
        "key_prefix": "motcua:rate",
    }
    storage = RedisStorage("async+" + settings.rate_store.get_secret_value(), **options)
    try:
        yield Rates(settings, storage)
    finally:
        await storage.bridge.get_connection().aclose()  # type: ignore[attr-defined]

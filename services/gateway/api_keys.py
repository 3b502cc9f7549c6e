"""Who an API key speaks for: the registry's clients, followed as they change."""

import hashlib
import time
from collections.abc import Callable

from libs.common.auth import Principal
from libs.common.bus.base import Received
from libs.common.problems import Unauthenticated, Unavailable
from libs.contracts.registry import ClientChanged
from services.gateway.words import say


class ApiKeys:
    """The clients as the registry announced them; a key is found by its hash, without a call."""

    def __init__(self) -> None:
        """Know nobody."""
        self.complete: Callable[[], bool] = lambda: True
        """Tells whether everybody who was ever registered has been read."""
        self._clients: dict[str, ClientChanged] = {}
        self._holders: dict[str, tuple[float, Principal]] = {}
        """By hash: until when, on the wall clock, and who."""

    def take(self, record: Received) -> None:
        """Apply one record of `registry.clients.v1`; what it no longer names is refused from now.

        Raises:
            ValueError: it cannot be read.
        """
        if record.value is None:
            return
        client = ClientChanged.model_validate_json(record.value)
        known = self._clients.get(client.id)
        if known is not None and known.version >= client.version:
            return
        for key in known.keys if known else ():
            self._holders.pop(key.sha256, None)
        self._clients[client.id] = client
        principal = Principal(client.id, client.kind.value, frozenset(client.units))
        for key in client.keys:
            until = key.not_after.timestamp() if key.not_after else float("inf")
            self._holders[key.sha256] = (until, principal)

    def holder(self, key: bytes) -> Principal:
        """Tell whose key it is.

        Raises:
            Unauthenticated: it is nobody's, or no longer.
            Unavailable: nobody can tell yet.
        """
        until, principal = self._holders.get(hashlib.sha256(key).hexdigest(), _NOBODYS)
        if not self.complete():
            raise Unavailable(say("the door is still reading who may call; try again in a moment"))
        if principal is None or until < time.time():
            raise Unauthenticated(say("this API key is not registered, or was replaced or revoked"))
        return principal


_NOBODYS: tuple[float, Principal | None] = (0.0, None)

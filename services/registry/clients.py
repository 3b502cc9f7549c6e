"""Kiosks and the portal as callers: registered, given new keys, revoked."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import publish
from libs.common.problems import Conflict, NotFound, malformed_field
from libs.contracts.directory import Directory, UnitNotActive, UnitSplit, UnknownUnit
from libs.contracts.registry import ClientChanged, ClientKey, ClientKind
from services.registry.models import ApiKey, Client
from services.registry.words import say

KEY_PREFIX: Final = "motcua_"
"""By which a key that was left in a repository or a chat is recognised."""


class UnknownClient(NotFound):
    """No client has this id.

    Take the id from `GET /v1/clients`.
    """


class ClientRevoked(Conflict):
    """The client was revoked, which is for ever; register it again.

    Register it anew.
    """


class StillRotating(Conflict):
    """Two keys of the client are valid already.

    Wait until the old key has ended, or end both at once with `overlap_seconds` 0.
    """


def hash_of(key: str) -> str:
    """Give what is stored of a key.

    256 random bits cannot be guessed, so a slow hash would protect nothing and cost every call;
    and one hash per key, not per client, finds its holder by a look-up.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def wall_clock() -> datetime:
    """Give the time that credentials go by, whatever the business clock says."""
    return datetime.now(UTC)


async def register(
    session: AsyncSession,
    kind: ClientKind,
    name: str,
    units: Sequence[str],
    *,
    directory: Directory,
    at: datetime,
) -> tuple[Client, str]:
    """Register a client; give it and its key, which nobody can read again.

    Raises:
        Malformed: a unit is not in service, is named twice, or does not go with the kind.
    """
    if kind is ClientKind.kiosk and not units:
        raise malformed_field("units", say("a kiosk stands in a unit: name it"))
    if kind is ClientKind.portal and units:
        raise malformed_field("units", say("the portal acts for every unit: name none"))
    codes = [_in_service(directory, place, name) for place, name in enumerate(units)]
    if len(set(codes)) < len(codes):
        raise malformed_field("units", say("a unit is named twice"))
    client = Client(
        id=f"{kind}-{secrets.token_hex(6)}",
        version=1,
        kind=kind.value,
        name=name,
        units=codes,
        created_at=wall_clock(),
        keys=[],
    )
    key = _add_key(client)
    session.add(client)
    await session.flush()
    announce(session, client, at)
    return client, key


def _in_service(directory: Directory, place: int, name: str) -> str:
    try:
        return directory.current(name).code
    except (UnknownUnit, UnitNotActive, UnitSplit) as wrong:
        raise malformed_field(f"units.{place}", wrong.detail) from None


def _add_key(client: Client) -> str:
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    client.keys.append(ApiKey(sha256=hash_of(key), created_at=wall_clock()))
    return key


async def rotate(
    session: AsyncSession, client_id: str, *, overlap: timedelta, at: datetime
) -> tuple[Client, str]:
    """Give a client a new key; the one it has stays good for `overlap`, or ends at once with none.

    Raises:
        UnknownClient, ClientRevoked. StillRotating: the overlap of the last time is not over.
    """
    client = await _locked(session, client_id)
    if client.revoked_at is not None:
        raise ClientRevoked(
            say(
                "{client_id} was revoked at {revoked_at}",
                client_id=client_id,
                revoked_at=client.revoked_at,
            )
        )
    now = wall_clock()
    valid = [key for key in client.keys if key.not_after is None or key.not_after > now]
    if overlap and len(valid) > 1:
        ends = next(key.not_after for key in valid if key.not_after)
        # Which of the two the kiosk shows, nobody here knows: ending one might cut it off.
        raise StillRotating(
            say(
                "the older key of {client_id} ends at {ends}; wait, or end both at once with "
                "overlap_seconds 0",
                client_id=client_id,
                ends=ends,
            )
        )
    client.keys = valid if overlap else []
    await session.flush()
    for key in client.keys:
        key.not_after = now + overlap
    shown = _add_key(client)
    await _changed(session, client, at)
    return client, shown


async def revoke(session: AsyncSession, client_id: str, *, at: datetime) -> Client:
    """End a client and all its keys for ever; again, it changes nothing.

    Raises:
        UnknownClient.
    """
    client = await _locked(session, client_id)
    if client.revoked_at is None:
        client.revoked_at = wall_clock()
        client.keys = []
        await _changed(session, client, at)
    return client


async def _changed(session: AsyncSession, client: Client, at: datetime) -> None:
    client.version += 1
    await session.flush()
    announce(session, client, at)


async def _locked(session: AsyncSession, client_id: str) -> Client:
    client = await session.get(Client, client_id, with_for_update=True)
    if client is None:
        raise UnknownClient(say("no client has the id {client_id}", client_id=client_id))
    return client


def announce(session: AsyncSession, client: Client, at: datetime) -> None:
    """Publish what a client may do and the hashes of its keys."""
    event = ClientChanged(
        id=client.id,
        version=client.version,
        kind=ClientKind(client.kind),
        units=tuple(client.units),
        keys=tuple(ClientKey(sha256=k.sha256, not_after=k.not_after) for k in client.keys),
    )
    publish(session, event, at=at)


def clients_where(*, kind: ClientKind | None, unit: str | None, revoked: bool) -> Select[Client]:
    """Select clients, those in use unless the revoked ones are asked for."""
    rows = select(Client).order_by(Client.id)
    rows = rows.where(Client.revoked_at.is_not(None) if revoked else Client.revoked_at.is_(None))
    if kind is not None:
        rows = rows.where(Client.kind == kind.value)
    if unit is not None:
        rows = rows.where(Client.units.contains([unit]))
    return rows

"""Routes by which kiosks and the portal become callers, and cease to be."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, status
from pydantic import Field

from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Cursor, In, Limit, Line, LocalTime, Out, Page
from libs.common.idempotency import KeepingRoute, Once
from libs.common.openapi.operations import refusals
from libs.contracts.codes import UnitName, UnitQuery
from libs.contracts.following import Registry
from libs.contracts.registry import ClientKind
from libs.contracts.roles import CityOffice, CityOrOps
from services.registry import clients, models

router = APIRouter(prefix="/v1/clients", tags=["clients"], route_class=KeepingRoute)

ClientId = Annotated[str, Path(max_length=100, description="As the registration answered it.")]


class ClientIn(In):
    """Who is to call: a kiosk for the units it stands in, or the portal."""

    kind: Annotated[ClientKind, Field(strict=False)]
    name: Line
    """Where it stands, for who looks after it; no person's name."""
    units: list[UnitName] = Field(default_factory=list, max_length=20)


class Rotation(In):
    """For how many seconds the present key stays good; with 0 it ends at once."""

    overlap_seconds: Annotated[int, Field(ge=0, le=90 * 86_400)] | None = None


class KeyOut(Out):
    """A key as it is known: by the beginning of its hash."""

    sha256_begins: str
    created_at: LocalTime
    not_after: LocalTime | None

    @classmethod
    def of(cls, key: models.ApiKey) -> "KeyOut":
        """Show a row."""
        return cls(
            sha256_begins=key.sha256[:12], created_at=key.created_at, not_after=key.not_after
        )


class ClientOut(Out):
    """A kiosk or the portal as a caller; its id is the subject it acts under."""

    id: str
    kind: ClientKind
    name: str
    units: list[str]
    version: int
    created_at: LocalTime
    revoked_at: LocalTime | None
    keys: list[KeyOut]
    api_key: str | None = None
    """The new key, shown this once; null in a repeated answer, for it is stored nowhere."""

    @classmethod
    def of(cls, client: models.Client, api_key: str | None = None) -> "ClientOut":
        """Show a row."""
        fields = {
            name: getattr(client, name)
            for name in cls.model_fields
            if name not in ("keys", "api_key")
        }
        keys = [KeyOut.of(key) for key in client.keys]
        return cls.model_validate(fields | {"keys": keys, "api_key": api_key})


def _shown_once(request: Request, client: models.Client, api_key: str) -> ClientOut:
    request.state.kept = ClientOut.of(client).model_dump_json().encode()
    return ClientOut.of(client, api_key)


@router.get("", response_model=Page[ClientOut])
async def list_clients(
    session: Session,
    registry: Registry,
    _: CityOrOps,
    kind: ClientKind | None = None,
    unit: UnitQuery | None = None,
    revoked: Annotated[bool, Query(description="Those that were revoked instead.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ClientOut]:
    """List the clients in use; no key can be read from it."""
    code = registry.current(unit).code if unit else None
    rows = clients.clients_where(kind=kind, unit=code, revoked=revoked)
    if cursor:
        rows = rows.where(models.Client.id > cursor)
    found = list(await session.scalars(rows.limit(limit + 1)))
    return Page(
        items=[ClientOut.of(client) for client in found[:limit]],
        next_cursor=found[limit - 1].id if len(found) > limit else None,
    )


@router.post(
    "",
    response_model=ClientOut,
    status_code=status.HTTP_201_CREATED,
    dependencies=[Once],
    operation_id="register_client",
)
async def register(
    request: Request, body: ClientIn, session: Session, registry: Registry, now: Now, _: CityOffice
) -> ClientOut:
    """Register a kiosk or the portal; `api_key` is shown now and never again."""
    client, key = await clients.register(
        session, body.kind, body.name, body.units, directory=registry, at=now
    )
    return _shown_once(request, client, key)


@router.post(
    "/{client_id}/rotate",
    response_model=ClientOut,
    dependencies=[Once],
    operation_id="rotate_client_key",
    responses=refusals(clients.UnknownClient, clients.ClientRevoked, clients.StillRotating),
)
async def rotate(
    request: Request,
    client_id: ClientId,
    session: Session,
    now: Now,
    _: CityOrOps,
    body: Rotation | None = None,
) -> ClientOut:
    """Give a client a new key; the old one stays good until the overlap is over."""
    seconds = body.overlap_seconds if body else None
    if seconds is None:
        seconds = request.state.settings.api_key_overlap_seconds
    client, key = await clients.rotate(
        session, client_id, overlap=timedelta(seconds=seconds), at=now
    )
    return _shown_once(request, client, key)


@router.post(
    "/{client_id}/revoke",
    response_model=ClientOut,
    dependencies=[Once],
    operation_id="revoke_client",
    responses=refusals(clients.UnknownClient),
)
async def revoke(client_id: ClientId, session: Session, now: Now, _: CityOrOps) -> ClientOut:
    """End a client and its keys for ever; the door knows within a second."""
    return ClientOut.of(await clients.revoke(session, client_id, at=now))

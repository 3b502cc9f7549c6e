"""The one frozen set of settings, read from the environment (prefix `MOTCUA_`) or secret files."""

import re
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SERVICES = ("registry", "intake", "queue", "reporting")
"""The services that keep a schema of their own; the gateway keeps none."""


class Profile(StrEnum):
    """What the process may assume of its surroundings."""

    development = "development"
    production = "production"


class Hours(StrEnum):
    """Which opening hours centres keep: round the clock for newcomers, or their own."""

    demo = "demo"
    official = "official"


DEFAULT_PASSWORDS = frozenset(
    {"admin", "changeme", "motcua", "password", "postgres", "secret", "test"}
)
"""What development sets and tutorials use; production refuses them."""


def _refuse_default_password(url: SecretStr | None) -> None:
    parts = urlsplit(url.get_secret_value()) if url else None
    if parts is None or parts.password is None:
        return  # a certificate or the machine's own account says who logs in
    from libs.common.db import service_password

    password, name = unquote(parts.password), parts.username or ""
    derived = {service_password(default, name) for default in DEFAULT_PASSWORDS}
    if password.lower() in DEFAULT_PASSWORDS | derived | {"", name}:
        raise ValueError(f"production refuses a default password for {name}: set another")


Rate = Annotated[str, Field(pattern=r"^([1-9][0-9]{0,8}/(second|minute|hour|day)|none)$")]
"""So many in so long, as `300/minute`; `none` is no limit."""

Seconds = Annotated[float, Field(gt=0, le=3600)]


class Settings(BaseSettings):
    """Everything that may differ between two installations.

    A secret may also come from a file: set `MOTCUA_SECRETS_DIR` to a folder that holds files named
    like the variables in lower case (`motcua_database_url`), as Kubernetes mounts them.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOTCUA_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    profile: Profile = Profile.development
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    drain_seconds: float = Field(default=0, ge=0, le=300)
    """For how long a process that is to stop, and says so, still takes calls: as long as whoever
    sends them may need to hear of it."""
    finish_seconds: int = Field(default=5, ge=1, le=300)
    """How long calls may take to finish once it takes no more."""
    data_dir: Path = Path(".motcua")
    postgres_bin: Path | None = None
    database_url: SecretStr | None = None
    admin_database_url: SecretStr | None = None
    database_pool: int = Field(default=8, ge=1, le=200)
    """Connections a service keeps for ordinary requests."""
    database_hot_pool: int = Field(default=8, ge=1, le=200)
    """Connections a service keeps for its single-statement paths."""
    kafka_bootstrap: str | None = None
    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    kafka_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    kafka_ca: Path | None = None
    """File with the certificates that the brokers' are signed by; unset, those of the machine."""
    facts_kept_days: int | None = Field(default=None, ge=1)
    """For how long Kafka keeps facts; unset, for ever: a rebuild needs all of them."""
    clock: str = "system"
    hours: Hours | None = None
    registry_url: str = "http://127.0.0.1:9001"
    intake_url: str = "http://127.0.0.1:9002"
    queue_url: str = "http://127.0.0.1:9003"
    reporting_url: str = "http://127.0.0.1:9004"
    oidc_issuer: str | None = None
    oidc_audience: str = "motcua"
    oidc_jwks_url: str | None = None
    """Where the issuer's keys are; unset, its own description is asked."""
    oidc_leeway_seconds: int = Field(default=30, ge=0, le=300)
    """How far the issuer's clock may be off."""
    oidc_role_claim: str = "role"
    """Claim that names the role, nested with dots: `realm_access.roles`; see docs/security.md."""
    oidc_role_prefix: str = ""
    oidc_units_claim: str = "units"
    oidc_units_prefix: str = ""
    gateway_key: SecretStr | None = None
    """PEM of the Ed25519 key that signs what the gateway tells services; only it has the key."""
    gateway_public_keys: str | None = None
    """PEM of the public keys by which everybody knows those tokens; while it changes, both."""
    api_key_overlap_seconds: int = Field(default=7 * 86_400, ge=0, le=90 * 86_400)
    """How long a client's old API key stays good beside its new one, unless said otherwise."""
    cors_origins: str = ""
    """Origins whose pages may call the door, separated by commas: `https://board.example.org`; `*`
    is all of them."""
    cors_credentials: bool = False
    """Whether browsers send them cookies and certificates along; tokens and keys need no leave."""
    only_tls: bool = False
    """Whether the door is reached over TLS alone: browsers are told never to try without."""
    log_level: str = "INFO"
    revision: str | None = None
    """The commit an image was built from, for `/version`."""
    allow_unsafe_database: bool = False
    """Take a database that may forget what it has acknowledged; for a developer's machine only."""
    fault: str | None = None
    """Fault points at which a test kills this process: see `libs.common.faults`."""
    sla_seconds: int = Field(default=1200, ge=60)
    """The promise: a ticket is called within this many seconds (order of 13 June 2025, item 1)."""
    head_start_seconds: dict[str, int] = Field(default_factory=dict)
    """How much earlier than its arrival says a priority class is due, where not the default."""
    recall_interval_seconds: int = Field(default=15, ge=0, le=600)
    """How long after a call the same ticket may be called again."""
    no_show_grace_seconds: int = Field(default=600, ge=0, le=14_400)
    """How long after a no-show the person may still be taken."""
    last_ticket_margin_seconds: int | None = Field(default=None, ge=0, le=14_400)
    """Where set, nobody gets a ticket whose turn is expected later than this before closing."""
    appointment_slot_minutes: int = Field(default=30, ge=10, le=240)
    """How long an appointment slot is where the centre has no length of its own."""
    appointment_share: float = Field(default=0.25, ge=0, le=1)
    """The part of what a centre's planned counters can serve that is given by appointment."""
    appointment_web_share: float = Field(default=0.75, ge=0, le=1)
    """The part of a slot that callers without credentials may fill between them."""
    appointment_days_ahead: int = Field(default=14, ge=0, le=90)
    appointment_early_minutes: int = Field(default=15, ge=0, le=120)
    """How long before its start an appointment may be checked in."""
    appointment_late_minutes: int = Field(default=15, ge=0, le=120)
    """How long after its start an appointment may be checked in."""
    kiosk_lease_numbers: int = Field(default=200, ge=1, le=500)
    """How many numbers a kiosk gets to issue offline where it does not say how many."""
    kiosk_lease_days_ahead: int = Field(default=7, ge=0, le=30)
    kiosk_key_file: Path | None = None
    """PEM file of the Ed25519 keys that sign kiosks' leases: the first signs, all are trusted."""
    wait_at_risk_seconds: int | None = Field(default=None, ge=1)
    """The wait, or its forecast, past which the promise is at risk; unset: three quarters of it."""
    staffing_share: float = Field(default=0.02, gt=0, lt=1)
    """The share of people that may wait longer than promised, in advice on counters."""

    # What the gateway lets in, and for how long it waits (docs/security.md, "Limits").
    trusted_proxies: str | None = None
    """Networks, with commas, whose word on a caller's address counts, or `none`; unset, the machine
    itself in development and nobody in production."""
    rate_store: SecretStr | None = None
    """`redis://…` where several gateways count calls together; unset, each counts for itself."""
    rate_anonymous_reads: Rate = "6000/minute"
    """For each address; behind one may be a whole centre, or a telephone company's customers."""
    rate_anonymous_writes: Rate = "300/minute"
    rate_wrong_credentials: Rate = "120/minute"
    """For each address, after which it is not worth checking another token."""
    rate_named: Rate | None = None
    """For each subject; unset, none in development and 6000/minute in production."""
    head_bytes: int = Field(default=32_768, ge=1024)
    head_fields: int = Field(default=100, ge=10)
    url_bytes: int = Field(default=8192, ge=256)
    body_bytes: int = Field(default=1_048_576, ge=1024)
    """The largest body but of a file; services may take less."""
    file_bytes: int = Field(default=51 * 1_048_576, ge=1024)
    """The largest body of `/v1/files`: 50 MB, and what a form puts around them."""
    head_seconds: Seconds = 10
    """How long a request's line and headers may take to come in."""
    body_seconds: Seconds = 60
    """How long a body may take to come in, but a file's."""
    caller_silence_seconds: Seconds = 30
    """For how long a caller may send nothing of its body, or take nothing of its answer."""
    upstream_connect_seconds: Seconds = 2
    upstream_answer_seconds: Seconds = 30
    """How long a service may take to begin its answer."""
    upstream_silence_seconds: Seconds = 30
    """For how long it may say nothing, at the beginning too; heartbeats of streams come oftener."""
    upstream_total_seconds: Seconds = 120
    """How long an answer may take in all, but a stream's or a file's."""
    upstream_calls: int = Field(default=256, ge=1)
    """Calls that a service may have under way."""
    door_calls: int = Field(default=640, ge=1)
    """Calls under way to all services: more than two stuck ones can take."""
    door_uploads: int = Field(default=64, ge=1)
    door_streams: int = Field(default=6000, ge=1)
    address_streams: int = Field(default=2000, ge=1)
    """Open streams of one address."""
    circuit_failures: int = Field(default=5, ge=1)
    """Failed calls in a row after which a service is left alone."""
    circuit_seconds: Seconds = 2
    """For how long; then one call tries it."""
    retry_share: float = Field(default=0.1, ge=0, le=1)
    """Calls that may be sent again, as a share of those sent."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment, and the folder of secret files where one is named."""
        import os

        folder = os.environ.get("MOTCUA_SECRETS_DIR")
        return cls(_secrets_dir=folder) if folder else cls()

    @model_validator(mode="after")
    def _a_head_start_is_within_the_promise(self) -> Self:
        for name, seconds in self.head_start_seconds.items():
            if not 0 <= seconds <= self.sla_seconds:
                raise ValueError(
                    f"MOTCUA_HEAD_START_SECONDS gives {name} {seconds}: a head start is between 0 "
                    f"and the promise of {self.sla_seconds} seconds"
                )
        return self

    @model_validator(mode="after")
    def _origins_are_origins(self) -> Self:
        for origin in self.shared_with:
            if origin != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", origin):
                raise ValueError(
                    f"MOTCUA_CORS_ORIGINS: {origin} is no origin; write scheme, host and port "
                    "alone, like https://board.example.org"
                )
        if "*" in self.shared_with and self.cors_credentials:
            raise ValueError(
                "MOTCUA_CORS_CREDENTIALS lets pages act as whoever looks at them: name their "
                "origins in MOTCUA_CORS_ORIGINS instead of *"
            )
        return self

    @cached_property
    def shared_with(self) -> tuple[str, ...]:
        """The origins whose pages may call the door."""
        return tuple(filter(None, map(str.strip, self.cors_origins.split(","))))

    @model_validator(mode="after")
    def _risk_comes_before_breach(self) -> Self:
        if self.at_risk_seconds > self.sla_seconds:
            raise ValueError(
                f"a promise of {self.sla_seconds} seconds (MOTCUA_SLA_SECONDS) cannot be at risk "
                f"only past {self.at_risk_seconds} (MOTCUA_WAIT_AT_RISK_SECONDS)"
            )
        return self

    @model_validator(mode="after")
    def _proxies_are_networks(self) -> Self:
        try:
            self.proxies  # noqa: B018  (worked out once, here)
        except ValueError as error:
            raise ValueError(
                f"MOTCUA_TRUSTED_PROXIES: {error}; write networks like 10.0.0.0/8,fd00::/8, or none"
            ) from None
        return self

    @model_validator(mode="after")
    def _production_is_strict(self) -> Self:
        if self.profile is Profile.production:
            if self.clock != "system":
                raise ValueError("production refuses a virtual clock: unset MOTCUA_CLOCK")
            if self.hours is Hours.demo:
                raise ValueError("production refuses demo hours: set MOTCUA_HOURS=official")
            if self.allow_unsafe_database:
                raise ValueError(
                    "production refuses a database that may lose acknowledged writes: "
                    "unset MOTCUA_ALLOW_UNSAFE_DATABASE"
                )
            if self.fault:
                raise ValueError("production refuses fault points: unset MOTCUA_FAULT")
            if not self.oidc_issuer or self.oidc_issuer.startswith("urn:motcua:"):
                raise ValueError(
                    "production refuses the development issuer: "
                    "set MOTCUA_OIDC_ISSUER to your OIDC provider's"
                )
            if not self.gateway_public_keys:
                raise ValueError(
                    "production refuses development keys: set MOTCUA_GATEWAY_PUBLIC_KEYS"
                )
            for url in (self.database_url, self.admin_database_url):
                _refuse_default_password(url)
        return self

    @cached_property
    def at_risk_seconds(self) -> int:
        """The wait past which the promise is at risk: by default 15 minutes of the 20."""
        return self.wait_at_risk_seconds or self.sla_seconds * 3 // 4

    @model_validator(mode="after")
    def _kafkas_account_is_whole(self) -> Self:
        if self.kafka_security.startswith("sasl") and not (
            self.kafka_username and self.kafka_password
        ):
            raise ValueError(
                f"MOTCUA_KAFKA_SECURITY={self.kafka_security} needs an account: "
                "set MOTCUA_KAFKA_USERNAME and MOTCUA_KAFKA_PASSWORD"
            )
        return self

    @cached_property
    def development(self) -> bool:
        """Whether conveniences of development (issuer, roles, demo hours) are allowed."""
        return self.profile is Profile.development

    @cached_property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks whose word on a caller's address counts."""
        told = self.trusted_proxies
        if told is None:
            told = "127.0.0.0/8,::1" if self.development else "none"
        return () if told == "none" else tuple(ip_network(one.strip()) for one in told.split(","))

    @cached_property
    def named_rate(self) -> str:
        """How often one who has a name may call."""
        return self.rate_named or ("none" if self.development else "6000/minute")

    @cached_property
    def facts_kept(self) -> timedelta | None:
        """For how long facts are kept; None is for ever."""
        return None if self.facts_kept_days is None else timedelta(days=self.facts_kept_days)

    @cached_property
    def round_the_clock(self) -> bool:
        """Whether centres take tickets at any hour, so that a newcomer at midnight gets one."""
        return (self.hours or (Hours.demo if self.development else Hours.official)) is Hours.demo

    def upstream(self, service: str) -> str:
        """Give the base address under which the gateway finds a service."""
        return str(getattr(self, f"{service}_url")).rstrip("/")

    @cached_property
    def database_host(self) -> str:
        """The database's host and name, for messages: never the password."""
        if self.database_url is None:
            return "no database"
        parts = urlsplit(self.database_url.get_secret_value())
        return f"{parts.hostname or 'local socket'}{parts.path}"


def explain_settings(error: ValidationError) -> str:
    """Say which settings are wrong, by the names they are set under, never with their values."""
    lines = []
    for entry in error.errors():
        place = ".".join(str(part) for part in entry["loc"]).upper()
        message = entry["msg"].removeprefix("Value error, ")
        lines.append(f"MOTCUA_{place}: {message}" if place else message)
    return "\n".join(lines)

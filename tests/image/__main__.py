"""`make image-check`: the city from the image, as an orchestrator would run it.

Builds the image, then runs the jobs and the five services from it, without root, without
capabilities and on a read-only root file system, on a real PostgreSQL and (with Java and Maven) a
real Kafka; plays one visit; stops them with open streams and expects 0 of each. Ends with 0 also
where no engine can be had, saying why, unless MOTCUA_REQUIRE_IMAGE is 1.
"""

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from deploy.kafka import Broker, missing_tools
from libs.common.postgres import EmbeddedPostgres
from libs.common.settings import SERVICES
from tests.image.engine import Docker, NoEngine, engine
from tests.support import reachable_folder
from tests.system.city import STREAMS, City, free_port, report_of, visit, wait_for, watched
from tests.system.test_city import this_week

ROOT = Path(__file__).parents[2]
IMAGE = "motcua:check"
USER = 10001
GATEWAY = "gateway"
CAREFUL = (
    "--network=host", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL",
    "--security-opt=no-new-privileges", "--stop-timeout=20",
    "--health-interval=1s", "--health-start-period=0s", "--health-retries=120",
)  # fmt: skip
"""As little as a pod is given; and health is asked each second, because we wait for it."""


def main() -> int:
    """Check the image; answer the exit status."""
    with reachable_folder() as folder:
        try:
            with engine(folder) as docker:
                check(docker, folder)
        except NoEngine as reason:
            print(f"the image was not checked: {reason}")
            return int(os.environ.get("MOTCUA_REQUIRE_IMAGE") == "1")
    print("the image is as it should be")
    return 0


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
    told = {"DATABASE_URL": database.url}
    if missing := missing_tools():
        print(f"events travel through PostgreSQL: {missing}")
    else:
        broker = stack.enter_context(Broker(folder / "kafka"))
        told["KAFKA_BOOTSTRAP"] = broker.bootstrap
    with timed("migrated, topics made, seeded"):
        for job in (("migrate",), ("topics", "apply"), ("seed",)):
            docker("run", "--rm", *CAREFUL, *options(told, data), IMAGE, "motcua", *job)
    ports = {name: free_port() for name in (*SERVICES, GATEWAY)}
    told |= {f"{name.upper()}_URL": f"http://127.0.0.1:{ports[name]}" for name in SERVICES}
    city = {
        name: stack.enter_context(running(docker, name, port, data, told, folder))
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
        docker("stop", container(GATEWAY))  # what stands before the others goes first
        docker("stop", *(container(name) for name in SERVICES))
        ended = {name: each.process.wait(30) for name, each in city.items()}
    assert set(ended.values()) == {0}, f"exit statuses: {ended}\n{city[GATEWAY].log.read_text()}"


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


def options(told: dict[str, str], data: Path) -> Iterator[str]:
    """Write settings, and the folder of development's keys, as options of `docker run`."""
    yield from (f"--env=MOTCUA_{name}={value}" for name, value in told.items())
    yield f"--volume={data}:/var/lib/motcua"


def container(name: str) -> str:
    """Name the container of a service."""
    return f"motcua-check-{name}"


def health(docker: Docker, name: str) -> str:
    """Tell what the image's own health check says."""
    return docker("inspect", "--format={{.State.Health.Status}}", container(name), check=False)


@contextmanager
def running(
    docker: Docker, name: str, port: int, data: Path, told: dict[str, str], folder: Path
) -> Iterator[City]:
    """Run one service from the image; the process is the client that waits for its end."""
    log = folder / f"{name}.log"
    own = told | {"HOST": "127.0.0.1", "PORT": str(port), "DRAIN_SECONDS": "1"}
    words = [f"--name={container(name)}", *CAREFUL, *options(own, data), IMAGE]
    process = docker.start("run", "--rm", *words, "python", "-m", f"services.{name}", output=log)
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

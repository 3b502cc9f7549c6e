"""One KRaft broker, controller and broker in one process, on loopback."""

import os
import secrets
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.kafka.server import HERE, CannotRun, jars, java
from libs.common.children import dying_with_parent

READY_SECONDS = 120
"""How long a start may take; four seconds where nothing else runs."""
_STOP_SECONDS = 20
_SETTINGS = {
    "node.id": "1",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # One broker keeps one copy of everything.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Few groups and producers: fewer partitions start and restart faster.
    "offsets.topic.num.partitions": "6",
    "transaction.state.log.num.partitions": "6",
    "group.initial.rebalance.delay.ms": "0",
    # Topics are code (libs/contracts/topics.py): one that is missing must be seen to be missing.
    "auto.create.topics.enable": "false",
    # A broker killed with -9 is let in again as soon as its old session is over.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}


class Broker:
    """A broker with its data in `folder`; `settings` are broker properties put over ours."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        jvm: tuple[str, ...] = ("-Xmx512m",),
        cluster: str | None = None,
        listener: str = "PLAINTEXT",
    ) -> None:
        """Describe it; nothing is started before `start`. Without a port a free one is chosen."""
        self.folder = folder.absolute()
        self.port = port or free_port()
        self.controller_port = free_port()
        # Kafka's own random names may begin with a dash, which its command takes for an option.
        self.cluster = cluster or secrets.token_hex(11)
        """The cluster that a new data folder belongs to."""
        self._listener = listener
        self._settings = dict(settings or {})
        self._jvm = jvm
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """What `MOTCUA_KAFKA_BOOTSTRAP` is set to."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """What the broker says."""
        return self.folder / "broker.log"

    def start(self, *, outlives_us: bool = False) -> str:
        """Start the broker, on what it kept, and wait until it answers; give its address.

        It ends with this process, even if that is killed, unless it `outlives_us`.

        Raises:
            CannotRun: Java or Maven is missing, the port is taken, or the broker does not start.
        """
        program, classes = java(), jars()
        _assert_free(self.port)
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [program, *self._jvm, "-XX:+UseSerialGC", "-cp", f"{classes}/*"]
        command += [f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
        properties = self._write_properties()
        self._format(command, properties)
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for the application, which may still want to send what it has.
                start_new_session=True,
                preexec_fn=None if outlives_us else dying_with_parent(signal.SIGKILL),
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self.bootstrap

    def stop(self) -> None:
        """Stop the broker; it keeps its data."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End the broker as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let the broker neither answer nor end, as a machine that hangs."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        """Start the broker."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the broker."""
        self.stop()

    def _write_properties(self) -> Path:
        properties = _SETTINGS | {
            "listeners": f"{self._listener}://{self.bootstrap},"
            f"CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"{self._listener}://{self.bootstrap}",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "log.dirs": str(self.folder / "data"),
        }
        path = self.folder / "server.properties"
        lines = (f"{name}={value}\n" for name, value in (properties | self._settings).items())
        path.write_text("".join(lines), "utf-8")
        return path

    def _format(self, command: list[str], properties: Path) -> None:
        """Make the data folder of a new cluster; one that is there is left as it is."""
        if (self.folder / "data" / "meta.properties").exists():
            return
        done = subprocess.run(
            [
                *(*command, "kafka.tools.StorageTool", "format"),
                *("-t", self.cluster, "-c", str(properties)),
            ],
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            check=False,
        )
        if done.returncode:
            raise CannotRun(f"Kafka cannot use {self.folder}: {done.stdout}{done.stderr}".strip())

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + READY_SECONDS
        while not answers(self.port):
            assert self._process is not None
            if self._process.poll() is not None:
                raise CannotRun(f"Kafka does not start: {self._last_words()}")
            if time.monotonic() > end:
                raise CannotRun(f"Kafka was not ready in {READY_SECONDS} s: see {self.log_file}")
            time.sleep(0.05)

    def _last_words(self) -> str:
        lines = self.log_file.read_text("utf-8", errors="replace").splitlines()
        telling = [line for line in lines if " ERROR " in line or " FATAL " in line]
        return f"{' '.join((telling or lines)[-2:])}; its log is {self.log_file}"


def answers(port: int) -> bool:
    """Tell whether a broker on loopback handles requests: it is asked which ones it knows."""
    question = struct.pack(">hhih", 18, 0, 1, -1)  # ApiVersions, version 0, from nobody by name
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(question)) + question)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def _assert_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            raise CannotRun(
                f"127.0.0.1:{port} is in use: stop what listens there, or choose another port "
                "(make kafka KAFKA_PORT=9192)"
            ) from None


def free_port() -> int:
    """Choose a loopback port that nothing listens on.

    Below 32,000 the kernel never gives it to an outgoing connection, so it stays free while the
    broker is being restarted and its clients already try to connect.
    """
    for _ in range(200):
        port = 16_000 + secrets.randbelow(16_000)
        try:
            _assert_free(port)
        except CannotRun:
            continue
        return port
    raise CannotRun("no free port was found on 127.0.0.1 for Kafka: stop what holds them")

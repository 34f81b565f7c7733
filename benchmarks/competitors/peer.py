"""Peers in environments of their own: workers, and a producer that is told what to do through a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from abc import abstractmethod
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import psutil

from benchmarks.measuring import Timed, own_cpu_s, peak_memory_mib, tree_cpu_s
from benchmarks.options import ROOT
from benchmarks.peers.driving import ANSWER, WORKER_IS_UP
from benchmarks.peers.environments import environment
from tests.processes import STARTUP_TIMEOUT_S, spawn, tail, wait_until

from .base import WARM_UP_CHAINS, WARM_UP_WIDTH, Competitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.options import Sizes
    from benchmarks.site import Site

__all__ = ["DbosPeer", "DirectorPeer", "PeerCompetitor", "ProcrastinatePeer"]

_SCRIPTS = ROOT / "benchmarks" / "peers"
_numbers = count()


class PeerCompetitor(Competitor):
    """A peer with its workers and one producer."""

    def __init__(self, site: Site, peer: str) -> None:
        super().__init__(site)
        self._python = environment(peer)
        self._url = site.empty_postgres()
        self._log = site.folder / f"{peer}-{next(_numbers)}.log"
        self._workers: list[subprocess.Popen[bytes]] = []
        self._producer: subprocess.Popen[str] | None = None

    @property
    def _libpq_url(self) -> str:
        return self._url.replace("postgresql+psycopg:", "postgresql:", 1)

    @abstractmethod
    def _producer_command(self) -> Sequence[str | Path]:
        """What runs the producer."""

    @abstractmethod
    def _worker_commands(self) -> Sequence[Sequence[str | Path]]:
        """What runs each worker."""

    @property
    def _environment(self) -> dict[str, str]:
        ours = {"PYTHONPATH", "PYTHONHOME"}
        return {name: value for name, value in os.environ.items() if name not in ours} | {"PYTHONUNBUFFERED": "1"}

    def chains(self, count: int, length: int) -> Timed:
        """Have the producer do it."""
        return self._ask("chains", count, length)

    def fan_out(self, width: int) -> Timed:
        """Have the producer do it."""
        return self._ask("fan_out", width)

    def _ask(self, *request: str | int) -> Timed:
        producer = self._started
        assert producer.stdin is not None  # noqa: S101 - opened so
        meter = self.meter()
        producer.stdin.write(json.dumps(request) + "\n")
        producer.stdin.flush()
        answer = json.loads(self._read(ANSWER))
        return Timed(answer["seconds"], meter.used())

    def _read(self, prefix: str) -> str:
        stdout = self._started.stdout
        assert stdout is not None  # noqa: S101 - opened so
        for line in stdout:
            if line.startswith(prefix):
                return line.removeprefix(prefix)
        msg = f"no result: the producer of {self.name} has ended:\n{tail(self._log)}"
        raise AssertionError(msg)

    @property
    def _started(self) -> subprocess.Popen[str]:
        if self._producer is None:
            msg = f"{self.name} was not started"
            raise RuntimeError(msg)
        return self._producer

    @property
    def cpu_groups(self) -> Mapping[str, Callable[[], float]]:
        """Its workers, each with what it has forked, and its own producer in place of this process."""
        producer = psutil.Process(self._started.pid)
        workers = [psutil.Process(worker.pid) for worker in self._workers]
        return {"producer": lambda: own_cpu_s(producer), "children": lambda: sum(map(tree_cpu_s, workers))}

    def peak_memory_mib(self) -> Mapping[str, float]:
        """The greatest of its workers' processes."""
        return {"child": max(map(peak_memory_mib, self._processes()))}

    def _start_producer(self) -> None:
        with self._log.open("ab") as log:
            self._producer = subprocess.Popen(
                [str(part) for part in self._producer_command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.site.folder,
                env=self._environment,
            )

    def _start_workers(self) -> None:
        for command in self._worker_commands():
            one = spawn(
                command,
                log=self._log,
                cwd=self.site.folder,
                parent_gone=signal.SIGTERM,
                env=self._environment,
            )
            self._workers.append(one)

    def __enter__(self) -> Self:
        """Start everything and warm it up."""
        try:
            self._start()
            self.chains(*WARM_UP_CHAINS)
            self.fan_out(WARM_UP_WIDTH)
            self._each_process(psutil.Process.suspend)
        except BaseException:
            self.__exit__(None)
            raise
        return self

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Only then its workers run: they poll the database, and would slow the others down."""
        self._each_process(psutil.Process.resume)
        try:
            yield
        finally:
            self._each_process(psutil.Process.suspend)

    def _each_process(self, call: Callable[[psutil.Process], None]) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                call(process)

    def _processes(self) -> list[psutil.Process]:
        alive = [psutil.Process(worker.pid) for worker in self._workers if worker.poll() is None]
        return [process for worker in alive for process in (worker, *worker.children(recursive=True))]

    def _start(self) -> None:
        self._start_workers()
        self._start_producer()

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        """End everything and drop the database."""
        self._each_process(psutil.Process.resume)  # or they would not hear that they are to end
        if self._producer is not None:
            with self._producer as producer:  # closes its pipe, which ends it, and waits
                if exc_type is not None:
                    producer.kill()
        for worker in self._workers:
            _end(worker)
        self.site.drop_postgres(self._url)


def _end(worker: subprocess.Popen[bytes]) -> None:
    below = psutil.Process(worker.pid).children(recursive=True) if worker.poll() is None else []
    worker.terminate()
    try:
        worker.wait(STARTUP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
    for process in below:
        if process.is_running():  # compares start times: a reused id is not ours
            process.kill()


class DbosPeer(PeerCompetitor):
    """DBOS in two processes."""

    name = "DBOS, PostgreSQL, 2 processes"

    def __init__(self, site: Site) -> None:
        super().__init__(site, "dbos")

    def _producer_command(self) -> Sequence[str | Path]:
        return [self._python, _SCRIPTS / "dbos_peer.py", "producer", self._url]

    def _worker_commands(self) -> Sequence[Sequence[str | Path]]:
        script = _SCRIPTS / "dbos_peer.py"
        return [[self._python, script, "worker", self._url, name] for name in ("first", "second")]

    def _start(self) -> None:
        self._start_workers()
        wait_until(self._workers_are_up, STARTUP_TIMEOUT_S, f"{self.name}: the workers have made the tables")
        self._start_producer()

    def _workers_are_up(self) -> bool:
        return self._log.read_text(errors="replace").count(WORKER_IS_UP) == len(self._workers)


class ProcrastinatePeer(PeerCompetitor):
    """procrastinate in two processes."""

    name = "procrastinate, 2 processes, no join"

    def __init__(self, site: Site) -> None:
        super().__init__(site, "procrastinate")

    def _producer_command(self) -> Sequence[str | Path]:
        return [self._python, _SCRIPTS / "procrastinate_peer.py", "producer", self._libpq_url]

    def _worker_commands(self) -> Sequence[Sequence[str | Path]]:
        return [[self._python, _SCRIPTS / "procrastinate_peer.py", "worker", self._libpq_url]] * 2

    def _start(self) -> None:
        self._start_producer()
        self._read("schema applied")
        self._start_workers()


class DirectorPeer(PeerCompetitor):
    """celery-director with one worker of two children."""

    name = "celery-director, PostgreSQL"

    def __init__(self, site: Site, sizes: Sizes) -> None:
        super().__init__(site, "director")
        self._home = site.folder / f"director-{next(_numbers)}"
        self._brokers = site.broker_url(), site.broker_url()
        self._sizes = sizes

    @property
    def _environment(self) -> dict[str, str]:
        broker, results = self._brokers
        return {
            **super()._environment,
            "DIRECTOR_HOME": str(self._home),
            "DIRECTOR_DATABASE_URI": self._libpq_url,
            "DIRECTOR_BROKER_URI": broker,
            "DIRECTOR_RESULT_BACKEND_URI": results,
            "FLASK_APP": "director._auto:app",
        }

    def _producer_command(self) -> Sequence[str | Path]:
        return [self._python, _SCRIPTS / "director_peer.py"]

    def _worker_commands(self) -> Sequence[Sequence[str | Path]]:
        options = ("--concurrency=2", "--prefetch-multiplier=1", "--loglevel=WARNING")
        return [[self._python, "-m", "celery", "-A", "director._auto:cel", "worker", *options]]

    def _start(self) -> None:
        self._write_home()
        migrate = [str(self._python), "-m", "flask", "db", "upgrade"]
        with self._log.open("ab") as log:
            subprocess.run(migrate, check=True, stdout=log, stderr=log, env=self._environment, cwd=self.site.folder)
        super()._start()

    def _write_home(self) -> None:
        """Its workflows are files: JSON, which is YAML."""
        workflows: dict[str, Any] = {}
        for length in (WARM_UP_CHAINS[1], self._sizes.chain_length):
            workflows[f"benchmark.CHAIN_{length}"] = {"tasks": ["NOOP"] * length}
        for width in (WARM_UP_WIDTH, self._sizes.width):
            side_by_side = {"GROUP": {"type": "group", "tasks": ["NOOP"] * width}}
            workflows[f"benchmark.FAN_OUT_{width}"] = {"tasks": [side_by_side, "NOOP"]}
        (self._home / "tasks").mkdir(parents=True)
        (self._home / "workflows.yml").write_text(json.dumps(workflows), encoding="utf-8")
        task = 'from director import task\n\n\n@task(name="NOOP")\ndef noop(*args, **kwargs):\n    pass\n'
        (self._home / "tasks" / "noop.py").write_text(task, encoding="utf-8")

"""Breaks what the schedule says, and starts again what is broken, as a service manager would. Nothing here repairs anything else.

Everything happens in `tick`, in the thread that calls it: what is started there ends with this process, however that ends.
"""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from tests.celery_worker import WARM_SHUTDOWN_S
from tests.processes import tail
from tests.worker.deployment import engine_pid

from .schedule import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.celery_worker import CeleryWorker
    from tests.servers import Server

    from .schedule import Fault

__all__ = ["Injected", "Injector"]

_STOP_TIMEOUT_S = WARM_SHUTDOWN_S  # a service manager's patience
_RESTART_S = 1.0  # of a worker that ended by itself
_VICTIM_S = 10.0  # how long a fault waits for a process that it could hit
_LAST_LINES = 100
_LOOK_S = 0.5  # how often the system is asked for the processes of a worker
_SIGNALS = {Kind.WARM: signal.SIGTERM, Kind.COLD: signal.SIGQUIT}


@dataclass(slots=True)
class Injected:
    """A fault that was injected. Times are those of `time.time`.

    Attributes:
        fault: Which.
        at: When.
        node: The worker's name in the history, where it was a worker's.
        pids: Which of its processes were hit.
        back_at: When the target was there again; None as long as it is not.
    """

    fault: Fault
    at: float
    node: str | None = None
    pids: frozenset[int] = frozenset()
    back_at: float | None = None


@dataclass(slots=True)
class _Unit:
    """One worker, as its service manager sees it."""

    worker: CeleryWorker
    start_at: float | None = None
    told_at: float | None = None
    thaw_at: float | None = None
    down_s: float = _RESTART_S
    last: Injected | None = None
    engine_lost: Injected | None = None
    engine: int = 0
    look_at: float = 0.0


class Injector:
    """Carries out a schedule against a deployment.

    Args:
        schedule: The faults, in order of time.
        workers: By name; running.
        servers: By name; running.
        say: Gets a line for each thing that happens.

    Attributes:
        injected: The faults so far.
        skipped: Faults that found no process to hit.
        oddities: What nobody asked for, such as a worker that ended by itself.
    """

    def __init__(
        self,
        schedule: Sequence[Fault],
        workers: Mapping[str, CeleryWorker],
        servers: Mapping[str, Server],
        say: Callable[[str], None],
    ) -> None:
        self._left = list(schedule)
        self._units = {name: _Unit(worker) for name, worker in workers.items()}
        self._servers = servers
        self._server_faults: dict[str, tuple[float, Injected]] = {}
        self._say = say
        self._began = time.monotonic()
        self._seen: set[psutil.Process] = set()
        self.injected: list[Injected] = []
        self.skipped: list[Fault] = []
        self.oddities: list[str] = []

    @property
    def workers(self) -> Mapping[str, CeleryWorker]:
        """By name."""
        return {name: unit.worker for name, unit in self._units.items()}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def over(self) -> bool:
        """Whether every fault was injected and everything is up again."""
        units = all(
            unit.worker.running and unit.thaw_at is None and unit.told_at is None for unit in self._units.values()
        )
        return not self._left and not self._server_faults and units

    def tick(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for name, (start_at, injected) in list(self._server_faults.items()):
            if now >= start_at:
                self._servers[name].start()
                injected.back_at = time.time()
                del self._server_faults[name]
        for name, unit in self._units.items():
            self._look_after(name, unit, now)
        while self._left and self.elapsed_s >= self._left[0].at_s:
            fault = self._left[0]
            if self._inject(fault):
                self._say(str(fault))
            elif self.elapsed_s < fault.at_s + _VICTIM_S:
                return  # it is being started; the next fault waits, too, so that the order stays
            else:
                self.skipped.append(fault)
            self._left.pop(0)

    def stop(self) -> list[str]:
        """Stop all workers warmly, and return what did not end in order."""
        wrong = []
        for name, unit in self._units.items():
            self._remember(unit)
            try:
                unit.worker.terminate(_STOP_TIMEOUT_S)
            except TimeoutError as error:
                wrong.append(f"{name}: {str(error).partition(chr(10))[0]}")
        _, alive = psutil.wait_procs(list(self._seen), timeout=10)
        wrong += [f"process {process.pid} was left behind: {_words(process)}" for process in alive if _alive(process)]
        return wrong

    # --- workers

    def _look_after(self, name: str, unit: _Unit, now: float) -> None:
        if unit.thaw_at is not None and now >= unit.thaw_at:
            _signal_group(unit.worker, signal.SIGCONT)
            unit.thaw_at = None
            _back(unit)
        if unit.worker.running:
            if now >= unit.look_at:
                self._remember(unit)
            if unit.told_at is not None and now > unit.told_at + _STOP_TIMEOUT_S:
                self._odd(f"{name} did not stop within {_STOP_TIMEOUT_S:g} s, killed", unit)
                unit.worker.kill(children_too=False)
            return
        if unit.start_at is None:
            if unit.told_at is None and (unit.last is None or unit.last.back_at is not None):
                self._odd(f"{name} ended by itself, exit code {unit.worker.returncode}", unit)
                unit.down_s = _RESTART_S
            unit.start_at = now + unit.down_s
        elif now >= unit.start_at:
            unit.worker.launch()
            unit.start_at = unit.told_at = None
            _back(unit)

    def _odd(self, text: str, unit: _Unit) -> None:
        self.oddities.append(f"at {self.elapsed_s:.1f} s, {text}{_last_words(unit.worker.log)}")
        self._say(f"odd: {self.oddities[-1]}")

    def _remember(self, unit: _Unit) -> None:
        """Know every process that was ever started, and notice a new engine."""
        unit.look_at = time.monotonic() + _LOOK_S
        with suppress(psutil.NoSuchProcess):
            self._seen.update(psutil.Process(unit.worker.pid).children(recursive=True))
        if unit.engine_lost is not None:
            pid = engine_pid(unit.worker)
            if pid not in (0, unit.engine):
                unit.engine_lost.back_at = time.time()
                unit.engine_lost = None

    def _inject(self, fault: Fault) -> bool:
        """Inject a fault; False where there is nothing (yet) that it could hit."""
        injected = Injected(fault, time.time())
        if fault.target in self._servers:
            self._servers[fault.target].kill()
            self._server_faults[fault.target] = (time.monotonic() + fault.down_s, injected)
        elif not self._hit(self._units[fault.target], injected):
            return False
        self.injected.append(injected)
        return True

    def _hit(self, unit: _Unit, injected: Injected) -> bool:
        worker, fault = unit.worker, injected.fault
        if not worker.running or unit.told_at is not None or unit.thaw_at is not None:
            return False
        injected.node = worker.node
        now = time.monotonic()
        if fault.kind in (Kind.CHILD, Kind.ENGINE):
            return self._kill_part(unit, injected)
        unit.last, unit.down_s = injected, fault.down_s
        injected.pids = frozenset(_children(worker.pid))
        if fault.kind is Kind.KILL:
            self._remember(unit)
            worker.kill(children_too=False)
        elif fault.kind is Kind.FREEZE:
            _signal_group(worker, signal.SIGSTOP)
            unit.thaw_at = now + fault.down_s
        else:
            os.kill(worker.pid, _SIGNALS[fault.kind])
            unit.told_at = now
        return True

    def _kill_part(self, unit: _Unit, injected: Injected) -> bool:
        engine = engine_pid(unit.worker)
        pool = sorted(pid for pid in _children(unit.worker.pid) if pid != engine)
        if not engine or not pool:
            return False
        if injected.fault.kind is Kind.ENGINE:
            victim = engine
            unit.engine, unit.engine_lost = engine, injected
        else:
            victim = pool[injected.fault.choice % len(pool)]
            injected.back_at = injected.at
        injected.pids = frozenset({victim})
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return True


def _last_words(log: Path) -> str:
    """Why a worker says that it gives up: Celery does where a pool process is killed before it has begun to work."""
    said = re.findall(r"CRITICAL/MainProcess\] (.*)", tail(log, _LAST_LINES))
    return f": {said[-1]}" if said else f"; see {log.name}"


def _back(unit: _Unit) -> None:
    if unit.last is not None and unit.last.back_at is None:
        unit.last.back_at = time.time()


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def _signal_group(worker: CeleryWorker, signum: signal.Signals) -> None:
    """To MAIN, its children and its engine at once: a worker is started in a group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signum)


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _words(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())[:120]
    return "gone"

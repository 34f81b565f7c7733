"""The engine process of a worker: consumes the control queue, sweeps, renews the leases of what MAIN holds.

It is a process of its own, spawned and not forked: its threads and connections must meet neither MAIN's event loop nor the forks of
MAIN, and a pool full of long steps must not delay a cancel. It ends when MAIN closes the pipe or dies.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from queue import Full, Queue
from typing import TYPE_CHECKING, Any

from celery.utils.imports import symbol_by_name

from interlock.core.attempts.attempts import AttemptRef
from interlock.core.attempts.leases import renew_leases
from interlock.core.attempts.outcomes import Failure
from interlock.core.attempts.undelivered import Undelivered
from interlock.core.database.revision import require_revision
from interlock.core.errors import InterlockError
from interlock.core.fault_points import fault_point
from interlock.core.redaction import RedactingFormatter
from interlock.core.sweeper.expiry_gate import ExpiryGate
from interlock.core.sweeper.sweeper import Sweeper
from interlock.signals.control.handler import CommandHandler
from interlock.signals.dispatch.interrupt_broadcast import write_interrupts
from interlock.signals.dispatch.lost_messages import LostMessages
from interlock.signals.runtime import Runtime, runtime_of
from interlock.worker.engine_pipe import read_lines

from .control_consumer import ControlConsumer

if TYPE_CHECKING:
    from celery import Celery

    from interlock.core.events import Interrupt

__all__ = ["Engine", "main"]

logger = logging.getLogger("interlock.engine")

_RESTART_AFTER_S = 1.0
_MOST_OBSERVATIONS = 10_000  # that wait for the database; more are dropped, because leases decide
_LAST_OBSERVATIONS_S = 8.0  # for those of a shutdown; MAIN waits a little longer for this process


class Engine:
    """The threads of an engine process."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._runtime: Runtime = runtime_of(app)
        self._settings = self._runtime.settings
        self._stop = threading.Event()
        self._held: list[str] = []
        self._alone = False
        self._observations: Queue[dict[str, Any] | None] = Queue(_MOST_OBSERVATIONS)
        self._output = threading.Lock()

    def run(self) -> None:
        """Work until MAIN closes the pipe."""
        threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (
                ("sweeper", self._sweep),
                ("claims", self._keep_claims),
                ("control", self._consume),
                ("watch", self._watch_parent),
            )
        ]
        for thread in threads:
            thread.start()
        fault_point("engine.ready")
        self._tell({"ready": True})
        observations = threading.Thread(target=self._take_observations, name="observations", daemon=True)
        observations.start()
        for message in read_lines(sys.stdin.buffer):
            self._hear(message)
        self._stop.set()
        with suppress(Full):
            self._observations.put(None, timeout=_LAST_OBSERVATIONS_S)
        observations.join(_LAST_OBSERVATIONS_S)  # a cold shutdown has just said which bodies it has killed
        for thread in threads:
            thread.join(timeout=5)
        self._runtime.close()

    # --- what MAIN says --------------------------------------------------------------------------------------------------

    def _hear(self, message: dict[str, Any]) -> None:
        """Renew the claims at once; leave everything else, which may wait for a workflow's lock, to a thread of its own."""
        if "held" not in message:
            try:
                self._observations.put_nowait(message)
            except Full:
                logger.warning("an observation of the worker was dropped, there are too many; leases will decide")
            return
        try:
            self._held = [str(task_id) for task_id in message["held"]]
            self._alone = bool(message.get("last"))
            self._beat()
        except Exception:  # without this thread nobody would renew the claims of this worker
            logger.exception("could not renew the claims of this worker; the next heartbeat tries again")

    def _take_observations(self) -> None:
        """Act on what MAIN saw of attempts, in order, until MAIN is gone and nothing is left."""
        while (message := self._observations.get()) is not None:
            try:
                if "ended" in message:
                    self._ended(message["ended"])
                elif "revoked" in message:
                    self._revoked(message["revoked"])
                elif "unknown" in message:
                    self._unknown(message["unknown"])
            except Exception:  # whatever it says, the others are to be heard
                logger.exception("could not act on an observation of the worker; leases will decide")

    def _beat(self) -> None:
        interrupts = self._renew()
        if interrupts:
            self._tell({"interrupts": write_interrupts(interrupts)})

    def _renew(self) -> list[Interrupt]:
        return renew_leases(self._runtime.database, self._settings, self._held)

    def _ended(self, seen: dict[str, Any]) -> None:
        ref = AttemptRef(seen["run_id"], seen["step_id"], seen["task_id"])
        failure = Failure(seen["cause"], seen["message"], meta={"worker": self._hostname})
        self._runtime.attempts.process_ended(ref, failure)

    def _revoked(self, seen: dict[str, Any]) -> None:
        ref = AttemptRef(seen["run_id"], seen["step_id"], seen["task_id"])
        how = {name: seen[name] for name in ("terminated", "expired", "softly")}
        self._runtime.attempts.revoked(ref, **how)

    def _unknown(self, seen: dict[str, Any]) -> None:
        """A worker that does not know the task has dropped the message: let it be sent again, but not for ever."""
        ref = AttemptRef(seen["run_id"], seen["step_id"], seen["task_id"])
        if Undelivered(self._runtime.database, self._settings).dropped(ref):
            message = f"no worker knows the task {seen['task']!r}: is its module imported by the workers?"
            self._runtime.attempts.fail_unstarted(ref, message)

    def _tell(self, message: dict[str, Any]) -> None:
        with self._output, suppress(BrokenPipeError):  # MAIN is gone, and this process ends with it
            sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
            sys.stdout.flush()

    # --- threads -------------------------------------------------------------------------------------------------------

    def _consume(self) -> None:
        known = frozenset(name for name in self._app.tasks if not name.startswith("celery."))
        checked = known if self._settings.check_tasks else None
        handler = CommandHandler(self._runtime.database, self._settings, checked, self._app)
        consumer = ControlConsumer(self._app, self._settings, handler, self._stop)
        while not self._stop.is_set():
            try:
                consumer.run()
            except Exception:  # what is in the queue may be anything, also what the transport itself cannot read
                logger.exception("the control queue's consumer failed; it goes on")
                self._stop.wait(_RESTART_AFTER_S)

    def _sweep(self) -> None:
        gate = ExpiryGate(self._settings)
        sweeper = Sweeper(self._runtime.database, self._settings, LostMessages(self._app), expiry_gate=gate)
        failing = False
        while not self._stop.wait(self._settings.sweep_s):
            try:
                swept = sweeper.sweep()
                if swept:
                    logger.info("sweep: %s", swept)
                failing = False
            except Exception as error:  # noqa: BLE001 - without this thread nothing would be recovered any more
                if not failing:
                    logger.warning(
                        "the sweep failed (%s: %s); it goes on when the database is back", type(error).__name__, error
                    )
                failing = True

    def _keep_claims(self) -> None:
        """Renew for a MAIN that waits; not in the sweeper's thread, which may have to wait for the broker itself."""
        while not self._stop.wait(self._settings.heartbeat_s):
            if self._alone:
                try:
                    self._renew()  # and tell nobody: MAIN may not read, and a full pipe would stop us
                except Exception as error:  # noqa: BLE001 - the next time may come before the leases end
                    logger.warning("could not renew the claims of this worker: %s: %s", type(error).__name__, error)

    def _watch_parent(self) -> None:
        """End with MAIN even where a child of it still holds the pipe open."""
        parent = os.getppid()
        while not self._stop.wait(1.0):
            if os.getppid() != parent:
                logger.warning("the worker is gone; the engine ends")
                os._exit(1)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("[%(asctime)s: %(levelname)s/engine] %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _import_tasks(app: Celery, modules: list[str]) -> None:
    for module in modules:
        try:
            app.loader.import_task_module(module)
        except ImportError as error:  # made in MAIN alone; commands that name its tasks are refused
            logger.warning("cannot import %s, whose tasks the worker knows: %s", module, error)


def main(arguments: list[str]) -> int:
    """Run an engine: `python -m interlock.worker.engine module:app hostname module…`; the modules define its tasks."""
    path, hostname, *modules = arguments
    # Ctrl-C and a service manager's SIGTERM reach the whole group; MAIN decides when the engine ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _log_to_stderr()
    app: Celery = symbol_by_name(path)
    app.loader.import_default_modules()
    _import_tasks(app, modules)
    app.finalize()
    try:
        engine = Engine(app, hostname)
        require_revision(runtime_of(app).database)
    except InterlockError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says what to do, a traceback would bury it
        return 2
    engine.run()
    return 0

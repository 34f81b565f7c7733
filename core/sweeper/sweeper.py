"""One pass over everything that is due; the engine process makes one every few seconds.

Any number of sweepers may run, be killed, or act on what they read before: each kind checks again under the run's lock.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from interlock.core.backoff import Backoff
from interlock.core.database.errors import is_unavailable
from interlock.core.fault_points import fault_point

from .approval_deadlines import ApprovalDeadlines
from .backoff import KeyedBackoff
from .command_cleanup import CommandCleanup
from .due_retries import DueRetries
from .due_runs import DueRuns
from .expired_attempts import ExpiredAttempts
from .redispatch import BATCH, Redispatcher
from .run_kind import NOTHING, SweepResult
from .stalled_runs import StalledRuns

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.database.database import Database
    from interlock.core.settings import Settings

    from .expiry_gate import ExpiryGate
    from .redispatch import FindMissing
    from .run_kind import Due, RunKind

__all__ = ["SweepResult", "Sweeper"]

logger = logging.getLogger("interlock.sweeper")

_LONGEST_PAUSE_S: Final = 60.0
_OTHER_RUN_KINDS: Final = (DueRetries, DueRuns, ApprovalDeadlines, StalledRuns)


class Sweeper:
    """The parts of a sweep, each kept from harming the others."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        find_missing: FindMissing | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        expiry_gate: ExpiryGate | None = None,
    ) -> None:
        """Set up one process's sweeper.

        Args:
            database: Where.
            settings: Times and rates.
            find_missing: See `Redispatcher`.
            clock: Monotonic seconds.
            expiry_gate: Says when a lease that is over means a lost worker; None: always, for a sweep by hand.
        """
        self._database = database
        redispatcher = Redispatcher(database, settings, find_missing)
        cleanup = CommandCleanup(database, settings, clock)
        backoff = Backoff(min(settings.sweep_s, _LONGEST_PAUSE_S), _LONGEST_PAUSE_S)

        def send_due(batch: int) -> SweepResult:
            return SweepResult(redispatched=redispatcher.send_due(batch))

        def send_missing(batch: int) -> SweepResult:
            return SweepResult(missing=redispatcher.send_missing(batch))

        def clean_up(_: int) -> SweepResult:
            cleanup.delete_old()
            return NOTHING

        self._parts: dict[str, Callable[[int], SweepResult]] = {"dispatches": send_due}
        self._gate = expiry_gate
        kinds: list[RunKind] = [ExpiredAttempts(database, settings, expiry_gate)]
        kinds += [kind(database, settings) for kind in _OTHER_RUN_KINDS]
        for kind in kinds:
            # A back-off for each kind: what one cannot do to a run, another may.
            self._parts[kind.name] = partial(self._sweep_runs, kind, KeyedBackoff(backoff, clock))
        self._parts |= {"missing": send_missing, "commands": clean_up}
        self._failing: set[str] = set()

    def sweep(self, *, batch: int = BATCH) -> SweepResult:
        """Do what is due now, at most `batch` rows of each kind.

        A part that fails is logged, once until it works again, and keeps no other part from being done.

        Raises:
            SQLAlchemyError: The database is away, full or read-only, so that no part would fare better.
        """
        result = NOTHING
        for name, part in self._parts.items():
            try:
                result += part(batch)
            except Exception as error:  # whatever it is, the other parts are about other rows
                if is_unavailable(error):
                    raise
                if name not in self._failing:
                    logger.exception("the sweep of %s failed; the others go on", name)
                self._failing.add(name)
            else:
                self._failing.discard(name)
                if self._gate is not None:  # a long sweep is no standstill
                    self._gate.database_answered()
        return result

    def _sweep_runs(self, kind: RunKind, backoff: KeyedBackoff, batch: int) -> SweepResult:
        with self._database.reading() as connection:
            found = kind.due(connection, batch, backoff.now())
        if found:
            fault_point("sweep.found", kind.name)
        batch_full = sum(len(due.ids) for due in found) == batch
        result = NOTHING
        for due in found:
            result += self._try_run(kind, backoff, due, batch_full=batch_full)
        return result

    def _try_run(self, kind: RunKind, backoff: KeyedBackoff, due: Due, *, batch_full: bool) -> SweepResult:
        """What was done to one run; nothing where it fails, which must not keep the others from being swept."""
        try:
            done = kind.enter(due)
        except Exception as error:  # whatever is stored there, by whichever version
            if is_unavailable(error):
                raise
            logger.exception("could not sweep the workflow %s", due.run_id)
            backoff.add(due.run_id)
            return NOTHING
        if done:
            backoff.forget(due.run_id)
        elif batch_full and kind.may_stay_due:
            backoff.add(due.run_id)  # there may be others behind this batch
        return done

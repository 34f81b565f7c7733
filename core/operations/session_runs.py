"""The runs of one session, and the transaction that each operation on them takes: the base of `WorkflowController`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from interlock.core.database.sessions import database_of, deliver_for, run_in_session
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.names import check_name
from interlock.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from interlock.core.database.sessions import OpenTransaction
    from interlock.core.events import Effects, EventEmitter

__all__ = ["SessionRuns"]

T = TypeVar("T")


class SessionRuns:
    """Opens the transaction of an operation, or joins the caller's."""

    def __init__(
        self,
        db_session: Session | OpenTransaction,
        session_id: str = "default",
        event_emitter: EventEmitter | None = None,
        *,
        settings: Settings | None = None,
        known_tasks: Collection[str] | None = None,
        deliver: Callable[[Effects], None] | None = None,
    ) -> None:
        """Set up a controller for one session.

        Args:
            db_session: An SQLAlchemy session (`Database.session()` or one of your own), or a transaction that is open.
            session_id: Whose runs; those of others do not exist for this controller.
            event_emitter: In-process listeners; the database's own where the session comes from `Database.session()`.
            settings: Limits and times; from the environment by default.
            known_tasks: Names of registered tasks, to refuse unknown ones at the door; None where they are not known.
            deliver: Gets the effects after the commit instead of the database's handlers.

        Raises:
            InvalidName: `session_id` has characters outside `[A-Za-z0-9_.-]`.
        """
        self.session_id = check_name("session_id", session_id)
        self._session = db_session
        self._settings = settings or Settings.load()
        self._known_tasks = known_tasks
        database = database_of(db_session)
        self._emitter = event_emitter or (database.emitter if database is not None else None)
        self._deliver = deliver or deliver_for(db_session, self._emitter)

    def _change(self, run_id: str, act: Callable[[UnitOfWork], T]) -> T:
        """Lock a run of the session and let `act` move it, in one transaction.

        Raises:
            RunNotFound: No such run in this session.
        """

        def work(connection: Connection, effects: Effects) -> T:
            unit = UnitOfWork.lock(connection, effects, run_id, session_id=self.session_id, emitter=self._emitter)
            result = act(unit)
            unit.finish()
            return result

        return self._write(work)

    def _write(self, work: Callable[[Connection, Effects], T]) -> T:
        """Do something in one transaction that locks no run, or locks by itself."""
        return run_in_session(self._session, work, self._deliver)

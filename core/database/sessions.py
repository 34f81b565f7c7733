"""Runs work in a caller's SQLAlchemy session: in its open transaction (as a savepoint), or in a transaction of its own.

Effects are delivered after the outermost commit; those of a savepoint or transaction that is rolled back are dropped. SQLAlchemy
does not say how a transaction ends that a `Connection` holds around its session, so effects of such a one are not delivered:
the sweeper dispatches the steps, and subscribers catch up.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, event, select
from sqlalchemy.exc import DBAPIError

from interlock.core.errors import DatabaseBusy
from interlock.core.events import Effects, EventEmitter
from interlock.core.fault_points import fault_point

from .chunks import chunked
from .database import Database
from .errors import is_transient
from .retrying import run_transaction
from .tables import WorkflowRun, WorkflowStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["OpenTransaction", "read_in_session", "run_in_session"]

T = TypeVar("T")

_WRITE = {"interlock_write": True}


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that its owner commits, delivering its effects; accepted wherever a session is.

    Attributes:
        connection: Open; a writing one if anything is to be written.
        effects: Filled with what is to be delivered.
    """

    connection: Connection
    effects: Effects


def run_in_session(
    session: Session | OpenTransaction,
    work: Callable[[Connection, Effects], T],
    deliver: Callable[[Effects], None],
) -> T:
    """Run `work` in the session's transaction (as a savepoint), or in a transaction of its own that is committed.

    Args:
        session: The caller's; an `OpenTransaction` is simply used.
        work: Gets the connection and an empty `Effects` to fill. In a transaction of its own it is called again after a
            transient failure.
        deliver: Gets the effects after the outermost commit.

    Raises:
        DatabaseBusy: The database gave up on every try; in a joined transaction the caller has to start it again.
    """
    if isinstance(session, OpenTransaction):
        return work(session.connection, session.effects)
    if session.in_transaction():
        return _joined(session, work, deliver)

    def work_and_refresh(connection: Connection, effects: Effects) -> T:
        result = work(connection, effects)
        _refresh(session, effects)
        return result

    result, effects = run_transaction(partial(_begun, session), work_and_refresh, "verb")
    if not _inside_outer_transaction(session):
        deliver(effects)
    return result


@contextmanager
def _begun(session: Session) -> Iterator[Connection]:
    with session.begin():
        yield session.connection(execution_options=_WRITE)


def read_in_session(session: Session | OpenTransaction, work: Callable[[Connection], T]) -> T:
    """Run a reading `work` in the session's transaction where one is open, else on a connection of its own.

    Reading thus never opens a transaction in the caller's session, which the next write would join, and which nobody might commit.
    """
    if isinstance(session, OpenTransaction):
        return work(session.connection)
    bind = session.get_bind()
    if session.in_transaction():
        session.flush()
        return work(session.connection())
    if isinstance(bind, Connection):
        return _read_on(bind, work)
    with bind.connect() as connection:
        return work(connection)


def _read_on(connection: Connection, work: Callable[[Connection], T]) -> T:
    """Read on a caller's connection, and leave it as it was."""
    outer = connection.in_transaction()
    try:
        return work(connection)
    finally:
        if not outer:
            connection.rollback()


def database_of(session: Session | OpenTransaction) -> Database | None:
    """The `Database` that made the session, if one did."""
    found = None if isinstance(session, OpenTransaction) else session.info.get("interlock_database")
    return found if isinstance(found, Database) else None


def deliver_for(session: Session | OpenTransaction, emitter: EventEmitter | None) -> Callable[[Effects], None]:
    """How effects of `session` are delivered: to its database's handlers, and to `emitter` or the database's own."""
    database = database_of(session)
    if database is not None:
        return lambda effects: database.deliver(effects, emitter or database.emitter)

    def only_emit(effects: Effects) -> None:
        if emitter is not None:
            for change in effects.changes:
                emitter.emit("state_changed", change.data())

    return only_emit


def _joined(
    session: Session,
    work: Callable[[Connection, Effects], T],
    deliver: Callable[[Effects], None],
) -> T:
    effects = Effects()
    try:
        with session.begin_nested():
            result = work(session.connection(), effects)
            _refresh(session, effects)
    except DBAPIError as error:
        if not is_transient(error):
            raise
        msg = f"the database gave up on the transaction: {error.orig}; roll back and start it again"
        raise DatabaseBusy(msg) from error
    _pending(session).add(session, effects, deliver)
    return result


def _refresh(session: Session, effects: Effects) -> None:
    """Bring loaded objects up to date while the transaction is open, so that looking at them opens no other."""
    touched = {change.workflow_id for change in effects.changes}
    if not touched:
        return
    loaded: dict[type[WorkflowRun | WorkflowStep], list[str]] = {WorkflowRun: [], WorkflowStep: []}
    for instance in session.identity_map.values():
        if isinstance(instance, WorkflowRun | WorkflowStep):
            run_id = instance.__dict__.get("id" if isinstance(instance, WorkflowRun) else "run_id")
            if run_id in touched:
                loaded[type(instance)].append(instance.__dict__["id"])
    for model, ids in loaded.items():
        for chunk in chunked(ids):
            query = select(model).where(model.id.in_(chunk))
            session.scalars(query.execution_options(populate_existing=True)).all()


@dataclass(slots=True)
class _Pending:
    """Effects of a session that wait for its commit, each with the transactions that it is inside of."""

    entries: list[tuple[tuple[SessionTransaction, ...], Effects, Callable[[Effects], None]]] = field(
        default_factory=list
    )

    def add(self, session: Session, effects: Effects, deliver: Callable[[Effects], None]) -> None:
        inside = []
        transaction = session.get_nested_transaction() or session.get_transaction()
        while transaction is not None:
            inside.append(transaction)
            transaction = transaction.parent
        self.entries.append((tuple(inside), effects, deliver))

    def rolled_back(self, transaction: SessionTransaction) -> None:
        self.entries = [entry for entry in self.entries if transaction not in entry[0]]

    def ended(self, transaction: SessionTransaction) -> None:
        """Drop what is left where a transaction ends without a commit or a rollback, by `session.close()`."""
        if transaction.parent is None:
            self.entries = []

    def committed(self) -> None:
        entries, self.entries = self.entries, []
        fault_point("verb.committed")
        for _, effects, deliver in entries:
            deliver(effects)


def _pending(session: Session) -> _Pending:
    found = session.info.get("interlock_pending")
    if isinstance(found, _Pending):
        return found
    pending = session.info["interlock_pending"] = _Pending()

    def after_commit(session: Session) -> None:
        # Fires for savepoints as well, and for a session that lives inside a connection's own transaction.
        if not session.in_nested_transaction() and not _inside_outer_transaction(session):
            pending.committed()

    def after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        pending.rolled_back(transaction)

    def after_transaction_end(session: Session, transaction: SessionTransaction) -> None:  # noqa: ARG001 - as above
        pending.ended(transaction)

    event.listen(session, "after_commit", after_commit)
    event.listen(session, "after_transaction_end", after_transaction_end)
    event.listen(session, "after_soft_rollback", after_soft_rollback)
    return pending


def _inside_outer_transaction(session: Session) -> bool:
    bind: Any = session.bind
    return isinstance(bind, Connection) and bind.in_transaction()

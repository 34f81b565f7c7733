"""The reading methods of the client: status, lists, explanations, results and history."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

from interlock.core.errors import ConfigurationError
from interlock.core.queries.history import PAGE, HistoryReader, read_changes
from interlock.signals.events.cloud_event import change_of

from .base import BaseClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from interlock.core.events import StateChange

__all__ = ["ReadingVerbs"]


class ReadingVerbs(BaseClient):
    """Each question is one command; a history is as many as it has pages."""

    def status(self, id: str) -> dict[str, Any]:  # noqa: A002 - SPEC's name
        """The run and its steps; see `interlock.core.queries.status.run_status`.

        Raises:
            RunNotFound: No such run in this session.
        """
        return dict(self._call("status", id))

    def result(self, id: str, step: str | None = None) -> Any:  # noqa: A002 - SPEC's name
        """The result of a step, or those of all final steps by key.

        Raises:
            RunNotFound: No such run in this session.
            CommandRefused: The step has no result (yet), or does not exist.
        """
        return self._call("result", id, step=step)

    def list(
        self,
        status: str | None = None,
        name: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 50,
    ) -> builtins.list[dict[str, Any]]:
        """The session's runs, newest first."""
        return builtins.list(
            self._call(
                "list",
                status=status,
                name=name,
                created_after=created_after,
                created_before=created_before,
                limit=limit,
            )
        )

    def explain(self, id: str) -> dict[str, Any]:  # noqa: A002 - SPEC's name
        """Why the run does not move, or what it is doing, in words; see `interlock.core.queries.explain.explain`.

        With the Celery app at hand, or over the control queue, the broker is asked about the queues in which steps wait.

        Raises:
            RunNotFound: No such run in this session.
        """
        return dict(self._call("explain", id))

    def history(self, id: str, after_seq: int = 0) -> builtins.list[StateChange]:  # noqa: A002 - SPEC's name
        """Every change of the run behind `after_seq`, in order.

        Raises:
            RunNotFound: No such run in this session.
        """
        changes: builtins.list[StateChange] = []
        while page := self._fetch(id, changes[-1].seq if changes else after_seq):
            changes += page
            if len(page) < PAGE:
                break
        if not changes:
            self.status(id)
        return changes

    # --- inside --------------------------------------------------------------------------------------------------------

    def _fetch(self, run_id: str, after_seq: int) -> builtins.list[StateChange]:
        if not self._has_database:
            return [change_of(event) for event in self._call("replay", run_id, after_seq=after_seq, limit=PAGE)]
        with self._open_runtime().database.reading() as connection:
            return read_changes(connection, run_id, session_id=self.session_id, after_seq=after_seq, limit=PAGE)

    def _reader(self, run_id: str) -> Callable[[int], builtins.list[StateChange]]:
        """Read the run's history page by page; the first read says whether there is such a run."""
        known = False

        def read(after_seq: int) -> builtins.list[StateChange]:
            nonlocal known
            page = self._fetch(run_id, after_seq)
            if not known and not page:
                self.status(run_id)  # raises for what is not there; a run of an older version has no history yet
            known = True
            return page

        return read

    def _session_reader(self) -> HistoryReader:
        if not self._has_database:
            msg = "to follow a whole session the client needs the database: give it a database_url"
            raise ConfigurationError(msg)
        return HistoryReader(self._open_runtime().database, self.session_id)

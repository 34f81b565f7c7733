"""The operators' verbs of the client: what moves a run or a step that exists."""

from __future__ import annotations

from typing import Any

from .base import BaseClient

__all__ = ["OperatorVerbs"]


class OperatorVerbs(BaseClient):
    """Each verb is one command."""

    def pause(
        self,
        id: str,  # noqa: A002 - SPEC's name
        step: str | None = None,
        reason: str | None = None,
        mode: str = "interrupt",
        *,
        request_id: str | None = None,
    ) -> None:
        """Pause an executing run and its running steps, or one running step.

        Args:
            id: The run.
            step: Key of the step to pause by itself: it stays paused until it is resumed by itself.
            reason: Why, for the history.
            mode: `interrupt` raises in the running bodies, `drain` lets them finish, `terminate` kills their processes.
            request_id: The same id again returns the first outcome.

        Raises:
            TransitionNotAllowed: The run is not executing, or the step not running.
            RunNotFound: No such run in this session.
        """
        self._call("pause", id, reason, request_id, mode=mode, step=step)

    def resume(
        self,
        id: str,  # noqa: A002 - SPEC's name
        step: str | None = None,
        reason: str | None = None,
        *,
        request_id: str | None = None,
    ) -> None:
        """Resume a paused run, or a step that was paused by itself."""
        self._call("resume", id, reason, request_id, step=step)

    def cancel(self, id: str, reason: str | None = None, *, request_id: str | None = None) -> None:  # noqa: A002 - SPEC's name
        """Cancel a run and everything unsettled in it; again, it is a no-op."""
        self._call("cancel", id, reason, request_id)

    def approve(self, id: str, step: str, comment: str | None = None, *, request_id: str | None = None) -> None:  # noqa: A002 - SPEC's name
        """Approve what a step asks for.

        Raises:
            AlreadyDecided: Somebody was first.
            CommandRefused: The step asks for nothing, or this actor may not decide it.
        """
        self._call("approve", id, None, request_id, step=step, comment=comment)

    def reject(self, id: str, step: str, comment: str | None = None, *, request_id: str | None = None) -> None:  # noqa: A002 - SPEC's name
        """Reject what a step asks for: the run is cancelled, or goes on with the decision where the plan says so."""
        self._call("reject", id, None, request_id, step=step, comment=comment)

    def retry(self, id: str, step: str, reason: str | None = None, *, request_id: str | None = None) -> None:  # noqa: A002 - SPEC's name
        """Run a failed step of a live run again.

        Raises:
            CommandRefused: The run has ended; the message is the `rerun` command to type.
        """
        self._call("retry", id, reason, request_id, step=step)

    def settle(
        self,
        id: str,  # noqa: A002 - SPEC's name
        step: str,
        result: Any,
        reason: str,
        *,
        request_id: str | None = None,
    ) -> None:
        """Give a failed step of a live run the result that it should have had; the reason is kept."""
        self._call("settle", id, reason, request_id, step=step, result=result)

    def rerun(self, id: str, reason: str | None = None, *, request_id: str | None = None) -> str:  # noqa: A002 - SPEC's name
        """Start a new run of a failed or cancelled one, which reuses what had completed; returns its id."""
        return str(self._call("rerun", id, reason, request_id))

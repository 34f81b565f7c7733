"""The subscribers' verbs of the client: following one run, or all runs of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interlock.core.model.transitions import WORKFLOW_TABLE
from interlock.signals.events.subscriber import AsyncSubscriber, Subscriber, Target
from interlock.signals.runtime import events_url

from .following.watching import awatch, awatch_session, watch, watch_session
from .reading import ReadingVerbs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from interlock.core.events import StateChange

__all__ = ["SubscriberVerbs"]


class SubscriberVerbs(ReadingVerbs):
    """Each change once and in order, from the history; events on Redis say when to look, and without them it is looked often."""

    def watch(self, id: str, after_seq: int = 0, *, timeout_s: float | None = None) -> Generator[StateChange]:  # noqa: A002 - SPEC's name
        """Yield every change of the run behind `after_seq`, each once and in order, until the run ends.

        Raises:
            RunNotFound: No such run in this session.
            WatchTimeout: `timeout_s` is over.
        """
        url = self._events_url()
        subscriber = None if url is None else Subscriber(url, self._target(id))
        poll_s = self.settings.watch_poll_s
        return watch(self._reader(id), subscriber, after_seq=after_seq, poll_s=poll_s, timeout_s=timeout_s)

    def awatch(self, id: str, after_seq: int = 0, *, timeout_s: float | None = None) -> AsyncGenerator[StateChange]:  # noqa: A002 - SPEC's name
        """`watch` for an event loop: `async for change in client.awatch(id): …`."""
        url = self._events_url()
        subscriber = None if url is None else AsyncSubscriber(url, self._target(id))
        poll_s = self.settings.watch_poll_s
        return awatch(self._reader(id), subscriber, after_seq=after_seq, poll_s=poll_s, timeout_s=timeout_s)

    def watch_session(
        self, after: Mapping[str, int] | None = None, *, timeout_s: float | None = None
    ) -> Generator[StateChange]:
        """Yield the changes of all runs of the session, each once and in order within its run; it does not end by itself.

        Args:
            after: For runs whose changes are known up to a `seq`, that number. The others are followed from now, and new ones from
                their first change.
            timeout_s: The longest time that it may take; None for no limit.

        Raises:
            ConfigurationError: The client has no database.
            WatchTimeout: `timeout_s` is over.
        """
        reader, url = self._session_reader(), self._events_url()
        subscriber = None if url is None else Subscriber(url, self._target())
        return watch_session(reader, subscriber, after=after, poll_s=self.settings.watch_poll_s, timeout_s=timeout_s)

    def awatch_session(
        self, after: Mapping[str, int] | None = None, *, timeout_s: float | None = None
    ) -> AsyncGenerator[StateChange]:
        """`watch_session` for an event loop."""
        reader, url = self._session_reader(), self._events_url()
        subscriber = None if url is None else AsyncSubscriber(url, self._target())
        return awatch_session(reader, subscriber, after=after, poll_s=self.settings.watch_poll_s, timeout_s=timeout_s)

    def wait(self, id: str, timeout_s: float | None = None) -> str:  # noqa: A002 - SPEC's name
        """Wait until the run ends, and return its final status.

        Raises:
            WatchTimeout: It has not ended in `timeout_s`; a TimeoutError.
            RunNotFound: No such run in this session.
        """
        known = self.status(id)
        if WORKFLOW_TABLE.is_terminal(WORKFLOW_TABLE.parse(known["status"])):
            return str(known["status"])
        last = str(known["status"])
        for change in self.watch(id, after_seq=known["seq"], timeout_s=timeout_s):
            if change.entity_type == WORKFLOW_TABLE.entity_type:
                last = change.to_state
        return last

    def _events_url(self) -> str | None:
        return events_url(self.app, self.settings)

    def _target(self, run_id: str | None = None) -> Target:
        return Target(self.session_id, run_id, prefix=self.settings.channel_prefix)

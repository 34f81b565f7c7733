"""One subscriber per session, for the whole time: what each received is compared with the history at the end."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interlock.client.following.watching import awatch_session
from interlock.core.queries.history import HistoryReader
from interlock.signals.events.subscriber import AsyncSubscriber, Target
from tests.processes import STARTUP_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from interlock.core import Database
    from interlock.core.events import StateChange
    from interlock.core.queries.history import SessionHeads

__all__ = ["Subscribers"]

_ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class _Reader(HistoryReader):
    """One that says when the watch has begun: it has subscribed by the time that it first asks where the runs stand."""

    begun: threading.Event

    def heads(self, **since: Any) -> SessionHeads:
        """As it is, and begun."""
        heads = HistoryReader.heads(self, **since)
        self.begun.set()
        return heads


class Subscribers(threading.Thread):
    """Watches each session in one event loop.

    Args:
        database: Where the history is caught up from.
        events_url: Where events are published.
        session_ids: Which sessions.
        poll_s: How often a quiet watch looks by itself.
        heard: Told of each change, in the thread of the subscribers.

    Attributes:
        received: What came, by run.
        ended: Runs whose end was seen.
        completed_steps: How many completions of steps were seen.
        failure: What ended a watch before its time.
    """

    def __init__(
        self,
        database: Database,
        events_url: str,
        session_ids: Iterable[str],
        *,
        poll_s: float,
        heard: Callable[[StateChange], None],
    ) -> None:
        super().__init__(name="subscribers", daemon=True)
        self._database, self._events_url, self._session_ids = database, events_url, tuple(session_ids)
        self._poll_s = poll_s
        self._heard = heard
        self._begun = {each: threading.Event() for each in self._session_ids}
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self.received: dict[str, list[StateChange]] = defaultdict(list)
        self.ended: set[str] = set()
        self.completed_steps = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Watch until told to stop."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._watch_all())
        except Exception as error:  # noqa: BLE001 - shown in the report, where it is a violation
            self.failure = error
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def wait_until_begun(self) -> None:
        """Wait until every change from now on will be received."""
        for begun in self._begun.values():
            if not begun.wait(STARTUP_TIMEOUT_S):
                message = f"the subscribers have not begun within {STARTUP_TIMEOUT_S:g} s: {self.failure!r}"
                raise TimeoutError(message)

    def stop(self) -> None:
        """Watch no more, and wait for the end of it."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self.join()

    async def _watch_all(self) -> None:
        watches = [asyncio.create_task(self._watch(session_id)) for session_id in self._session_ids]
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait([*watches, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in (*watches, stopped):
            task.cancel()
        ends = await asyncio.gather(*watches, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _watch(self, session_id: str) -> None:
        subscriber = AsyncSubscriber(self._events_url, Target(session_id))
        reader = _Reader(self._database, session_id, self._begun[session_id])
        async for change in awatch_session(reader, subscriber, poll_s=self._poll_s):
            self.received[change.workflow_id].append(change)
            if change.step_key is None:
                if change.to_state in _ENDED:
                    self.ended.add(change.workflow_id)
            elif change.to_state == "completed":
                self.completed_steps += 1
            self._heard(change)

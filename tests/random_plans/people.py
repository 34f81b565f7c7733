"""People: each does one thing after the other, in a thread of its own, with the database or over the control queue."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from interlock.core.errors import AlreadyDecided, CommandRefused, EntityNotFound, StateMachineError
from tests.chaos.agenda import Agenda
from tests.chaos.load import may_pass

from .facts import Said

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock import Client

    from .plans import Act

__all__ = ["Person"]

_PAUSE_S = 0.2
_REFUSALS = (CommandRefused, StateMachineError, AlreadyDecided, EntityNotFound)


class Person(Agenda):
    """Asks for one thing after the other.

    Args:
        client: Its way to Interlock, and its name.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(client.actor)
        self._client = client

    def ask(self, run_id: str, act: Act, value: Any, told: Callable[[Said], None], before: Callable[[], None]) -> None:
        """Do it when its time has come.

        Args:
            run_id: The run.
            act: What to do.
            value: With `settle`, the result to give.
            told: Gets the answer.
            before: Called just before.
        """

        def do() -> None:
            before()
            told(self._say(run_id, act, value))

        self.at(time.monotonic() + act.after_s, do)

    def _say(self, run_id: str, act: Act, value: Any) -> Said:
        asked_at = time.time()
        request_id = f"{act.verb}-{run_id}-{time.monotonic_ns()}"
        while True:
            refusal, wrong, result = None, False, value if act.verb == "settle" else None
            try:
                answer = self._call(run_id, act, value, request_id)
                result = answer if act.verb == "rerun" else result
            except Exception as error:  # noqa: BLE001 - what must not be is told in the report
                if may_pass(error) and not self.stopping.wait(_PAUSE_S):
                    continue
                refusal, wrong = f"{type(error).__name__}: {error}", not isinstance(error, _REFUSALS)
            return Said(act, self._client.actor, asked_at, time.time(), refusal, wrong, result)

    def _call(self, run_id: str, act: Act, value: Any, request_id: str) -> Any:
        client, step = self._client, str(act.step)
        calls: dict[str, Callable[..., Any]] = {
            "pause": partial(client.pause, run_id, act.step, mode=act.mode),
            "resume": partial(client.resume, run_id, act.step),
            "cancel": partial(client.cancel, run_id),
            "approve": partial(client.approve, run_id, step),
            "reject": partial(client.reject, run_id, step),
            "retry": partial(client.retry, run_id, step),
            "settle": partial(client.settle, run_id, step, value, reason="by hand"),
            "rerun": partial(client.rerun, run_id),
        }
        return calls[act.verb](request_id=request_id)

"""Makes the Celery request of a step that comes without a message, as its message would have made it.

A body, and whoever receives Celery's signals, must not see a difference: the headers are those that Celery itself gives a message
of this kind, and the rest is what a worker adds when it takes one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.app.task import Context

from interlock.core.redaction import HIDDEN
from interlock.signals.step_header import HEADER, header_of

from .held_attempt import HELD_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from interlock.core.events import Dispatch

    from .held_attempt import HeldAttempt

__all__ = ["CarriedRequests"]


class CarriedRequests:
    """Makes the requests of one app's carried steps."""

    def __init__(self, app: Celery, *, show_payloads: bool) -> None:
        self._app: Any = app
        self._show_payloads = show_payloads
        self._headers: dict[str, dict[str, Any]] = {}

    def make(
        self,
        dispatch: Dispatch,
        held: HeldAttempt,
        args: list[Any],
        kwargs: dict[str, Any],
        message: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The request of an attempt.

        Args:
            dispatch: The attempt.
            held: The same, claimed.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            message: The request of the message on which this process came.
        """
        headers = self._headers.get(dispatch.task)
        if headers is None or self._show_payloads:
            headers = self._headers[dispatch.task] = self._headers_of(dispatch, args, kwargs)
        priority = dispatch.spec.get("priority", message["delivery_info"].get("priority"))
        identity = header_of(dispatch)
        return {
            **headers,
            "headers": {**headers["headers"], HEADER: identity},
            "id": dispatch.task_id,
            "root_id": dispatch.run_id,
            "parent_id": dispatch.run_id,
            HEADER: identity,
            HELD_KEY: held,
            "properties": {"correlation_id": dispatch.task_id, "reply_to": ""},
            "reply_to": "",
            "correlation_id": dispatch.task_id,
            "hostname": message.get("hostname"),
            "delivery_info": {**message["delivery_info"], "priority": priority, "redelivered": False},
            "args": args,
            "kwargs": kwargs,
            "is_eager": False,
            "callbacks": None,
            "errbacks": None,
            "chain": None,
            "chord": None,
        }

    def _headers_of(self, dispatch: Dispatch, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        hidden = {} if self._show_payloads else {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
        message = self._app.amqp.as_task_v2(dispatch.task_id, dispatch.task, args, kwargs, ignore_result=True, **hidden)
        headers = dict(message.headers)
        # What Celery makes of the headers that it does not know, for each request, where nobody has done so before.
        own = Context({**headers, HEADER: None}).headers or {}
        return {**headers, "headers": {name: value for name, value in own.items() if name != HEADER}}

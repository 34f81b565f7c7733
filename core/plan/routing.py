"""Checks the `apply_async` options of a step: which it may have, and why others are refused.

A step's message is sent by Interlock, from what the database says, perhaps days later and perhaps
again. What only describes the message or its route can be stored; what would let Celery decide when
or whether work happens, or what comes after it, cannot.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from interlock.core.json_values import Json, Problem

__all__ = ["ROUTING_OPTIONS", "routing_problems"]

ROUTING_OPTIONS: Final[Mapping[str, str]] = {
    "exchange": "name of the exchange to send to",
    "routing_key": "routing key of the message",
    "expires": "seconds after which an unclaimed message is worthless: the attempt then fails",
    "delivery_mode": "1 (transient) or 2 (persistent)",
    "compression": "compression of the body: gzip, bzip2, …",
    "headers": "further message headers; names that begin with interlock are reserved",
}
"""Options that are passed on to the broker, with what they mean."""

_OWN_FIELD: Final = "it is a field of the step itself"
_AFTER: Final = "write what follows as a step with `after`"
_OURS: Final = "Interlock sets it"

_REFUSED: Final[Mapping[str, str]] = {
    "queue": _OWN_FIELD,
    "priority": _OWN_FIELD,
    "time_limit": "use the step's timeout_s",
    "soft_time_limit": "use the step's timeout_s",
    "countdown": "nothing waits on the broker: use start_at of enqueue, or retry",
    "eta": "nothing waits on the broker: use start_at of enqueue, or retry",
    "retry": "sending is repeated by the sweeper; the step's own field retry repeats the task",
    "retry_policy": "sending is repeated by the sweeper",
    "link": _AFTER,
    "link_error": "write what follows as a step with `after` and trigger any_failed",
    "chain": _AFTER,
    "chord": _AFTER,
    "group_id": _AFTER,
    "group_index": _AFTER,
    "task_id": "each attempt gets a new id",
    "root_id": _OURS,
    "parent_id": _OURS,
    "reply_to": "results are stored with the step",
    "ignore_result": "results are stored with the step",
    "serializer": "it is always json",
    "producer": "it is not data",
    "connection": "it is not data",
    "router": "it is not data",
    "add_to_parent": _OURS,
    "stamped_headers": "stamping is not supported",
}


def routing_problems(options: Mapping[str, Json]) -> Iterable[Problem]:
    """What is wrong with a step's `options`, each with the path below them."""
    for name, value in options.items():
        if name not in ROUTING_OPTIONS:
            yield (name,), _refusal(name)
        elif message := _VALUE_FAULTS[name](value):
            yield (name,), message


def _refusal(name: str) -> str:
    if name in _REFUSED:
        return f"cannot be an option: {_REFUSED[name]}"
    close = difflib.get_close_matches(name, ROUTING_OPTIONS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(ROUTING_OPTIONS)}"
    return f"unknown option ({hint})"


def _text(value: Json) -> str:
    return "" if isinstance(value, str) and value else "must be a string"


def _seconds(value: Json) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "" if number and value > 0 else "must be a number of seconds above 0"


def _delivery_mode(value: Json) -> str:
    known = value in (1, 2) and not isinstance(value, bool)
    return "" if known else "must be 1 (transient) or 2 (persistent)"


def _headers(value: Json) -> str:
    if not isinstance(value, dict):
        return "must be an object"
    taken = [name for name in value if name.lower().startswith("interlock")]
    return f"the header {taken[0]!r} is reserved" if taken else ""


_VALUE_FAULTS: Final = {
    "exchange": _text,
    "routing_key": _text,
    "expires": _seconds,
    "delivery_mode": _delivery_mode,
    "compression": _text,
    "headers": _headers,
}

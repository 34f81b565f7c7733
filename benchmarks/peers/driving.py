"""How a peer's producer is told what to do: a line of JSON in, a line of JSON out. Only the standard library: see the package."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ANSWER", "WORKER_IS_UP", "serve", "wait_for"]

ANSWER = "answer: "
"""Before each answer, so that what libraries print is not taken for one."""
WORKER_IS_UP = "worker is up"
"""What a worker prints, where its producer has to wait for it."""

_DEADLINE_S = 900.0
_POLL_S = 0.02


def serve(verbs: Mapping[str, Callable[..., None]]) -> None:
    """Carry out `[verb, argument…]` lines until there are no more, and answer how many seconds each took."""
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        begun = time.time()
        verbs[verb](*arguments)
        print(ANSWER + json.dumps({"seconds": time.time() - begun}), flush=True)


def wait_for(count: Callable[[], int], expected: int) -> None:
    """Ask fifty times a second until a count is reached.

    Raises:
        TimeoutError: It was not.
    """
    deadline = time.monotonic() + _DEADLINE_S
    while (found := count()) < expected:
        if time.monotonic() > deadline:
            message = f"{found} of {expected} after {_DEADLINE_S:g} s"
            raise TimeoutError(message)
        time.sleep(_POLL_S)

"""`python -m benchmarks.listener REDIS_URL SESSION RUNS`: a subscriber in a process of its own, as subscribers are.

It prints a line when it hears, listens until so many runs have ended, and prints how old each event was when it arrived.
The age counts from the statement that wrote the history row, so the rest of that transaction and its commit are in it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from interlock.core.events import StateChange
from interlock.core.model.transitions import WORKFLOW_TABLE
from interlock.signals.events.subscriber import Link, Subscriber, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

READY = "listening"


def main(arguments: Sequence[str]) -> int:
    """Listen.

    Returns:
        The exit code.
    """
    url, session_id, runs = arguments
    ages_ms: list[float] = []
    left = int(runs)
    with Subscriber(url, Target(session_id)) as subscriber:
        while left:
            heard = subscriber.get(timeout_s=1.0)
            now = time.time()
            if heard is Link.SUBSCRIBED:
                print(READY, flush=True)
            elif heard is Link.LOST:
                print("events were lost", file=sys.stderr)
                return 1
            elif isinstance(heard, StateChange) and heard.created_at is not None:
                ages_ms.append(round((now - heard.created_at.timestamp()) * 1000, 3))
                ended = heard.entity_type == WORKFLOW_TABLE.entity_type and heard.to_state in WORKFLOW_TABLE.terminal
                left -= ended
    print(json.dumps(ages_ms))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The handshake of an embedded server and its worker: variables of the environment, and a line of the worker's output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from interlock.cli.applications import FOREIGN_BROKERS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BROKER", "QUEUES", "READY_LINE", "USER_APP", "worker_environment"]

USER_APP: Final = "INTERLOCK_DEV_APP"
"""Import path of the user's app. `INTERLOCK_APP` is `interlock.cli.dev.devapp`, so that the engine loads that, too."""
QUEUES: Final = "INTERLOCK_DEV_QUEUES"
"""Further queues to consume, separated by commas."""
BROKER: Final = "INTERLOCK_BROKER_URL"
"""URL of the server's Redis."""
READY_LINE: Final = "\x1einterlock worker ready"
"""What the worker prints, on a line of its own, once it takes tasks."""


def worker_environment(app: str, database_url: str, broker_url: str, queues: Iterable[str]) -> dict[str, str]:
    """This process's environment, changed so that the worker reaches the embedded servers and no others."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN_BROKERS}
    search_path = [str(Path.cwd()), environment.get("PYTHONPATH", "")]
    return environment | {
        "INTERLOCK_APP": "interlock.cli.dev.devapp:app",
        "INTERLOCK_DATABASE_URL": database_url,
        "INTERLOCK_REDIS_URL": broker_url,
        "PYTHONPATH": os.pathsep.join(part for part in search_path if part),
        "PYTHONUNBUFFERED": "1",
        BROKER: broker_url,
        QUEUES: ",".join(queues),
        USER_APP: app,
    }

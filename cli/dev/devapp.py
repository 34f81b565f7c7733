"""The app that an embedded server's worker runs: the user's, installed and pointed at the servers of the data folder.

`celery -A interlock.cli.dev.devapp worker`, with the variables that `EmbeddedServer` sets. Importing this module is what does
it, in the worker and in every process that it starts, so that none of them reaches the brokers of production.
"""

from __future__ import annotations

import os
from typing import Any, Final

from celery import signals

from interlock.cli.applications import load_app, use_broker
from interlock.worker import install

from .handshake import BROKER, QUEUES, READY_LINE, USER_APP

__all__ = ["app"]

_QUICK: Final = {"interlock_sweep_s": 1.0, "interlock_heartbeat_s": 3.0, "interlock_lease_s": 10.0}
"""One machine, few steps: a look into the database costs nothing, and who tries things out does not like to wait."""

app = load_app(os.environ[USER_APP])
"""The user's app."""

use_broker(app, os.environ[BROKER])
app.conf.update({name: value for name, value in _QUICK.items() if app.conf.get(name) is None})
install(app)

for _queue in os.environ.get(QUEUES, "").split(","):
    if _queue and _queue not in app.amqp.queues:
        app.amqp.queues.select_add(_queue)  # type: ignore[arg-type]  # a name will do


@signals.worker_ready.connect(weak=False)
def _tell_ready(**_: Any) -> None:
    # Past Celery's redirection of the standard streams, and in one write: other processes share the pipe.
    os.write(2, f"\n{READY_LINE}\n".encode())

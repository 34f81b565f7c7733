"""Does anything stay open? The broker is killed and comes back empty, again and again, with work in between."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from interlock import Step
from tests.processes import wait_until
from tests.worker.deployment import task_name

from .measuring import held

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock import Client
    from tests.celery_worker import CeleryWorker
    from tests.worker.deployment import Deployment

    from .measuring import Held

__all__ = ["restart_broker"]

_BRANCHES = 6
_WAIT_S = 60.0
_SETTLED_S = 30.0
_STABLE_S = 5.0
_LOOK_EVERY_S = 0.25


def restart_broker(
    deployment: Deployment,
    worker: CeleryWorker,
    remote: Client,
    *,
    times: int,
    warm_up: int,
    say: Callable[[int], None],
) -> tuple[Held, Held]:
    """Restart the broker so many times, after each have every process use it, and return what was open before and after.

    Args:
        deployment: Where.
        worker: Whose processes are looked at.
        remote: A client that has the broker alone; it is looked at too, being in this process.
        times: Restarts between the two looks.
        warm_up: Restarts before the first look: what is opened at the first reconnection and kept is no leak.
        say: Told of each restart.
    """
    before = None
    for number in range(warm_up + times):
        if number == warm_up:
            before = _settled(lambda: held(worker, deployment))
        deployment.broker.kill()
        lost = _enqueue(deployment) if number < warm_up else None
        deployment.broker.start()
        if (
            lost is not None
        ):  # the engine asks MAIN for it; the connections of question and answer are kept by their pools
            _completed(deployment, lost)
        _use(deployment, remote)
        say(number + 1)
    if before is None:
        message = "nothing was looked at before the restarts"
        raise ValueError(message)
    # What is in use at the moment of a look is not open for good: a leak stays.
    with suppress(TimeoutError):
        wait_until(lambda: not held(worker, deployment).more_than(before), _SETTLED_S, "nothing more is open")
    return before, held(worker, deployment)


def _settled(look: Callable[[], Held]) -> Held:
    """What is open once nothing has changed for a while: behind a restart, each part of a worker comes back in its own time."""
    seen, since = look(), time.monotonic()
    deadline = since + _SETTLED_S
    while time.monotonic() < min(since + _STABLE_S, deadline):
        time.sleep(_LOOK_EVERY_S)
        now = look()
        if now != seen:
            seen, since = now, time.monotonic()
    return seen


def _use(deployment: Deployment, remote: Client) -> None:
    """Steps through MAIN and the pool, a command through the engine, and its answer."""
    run_id = _enqueue(deployment)
    _completed(deployment, run_id)
    if (status := remote.status(run_id)["status"]) != "completed":
        message = f"run {run_id} is {status} for a remote client"
        raise RuntimeError(message)


def _enqueue(deployment: Deployment) -> str:
    root = Step("root", task_name("total"), [[1]])
    branches = [Step(f"b{number}", task_name("total"), [[root.result]], after=root) for number in range(_BRANCHES)]
    return deployment.enqueue(root, *branches)


def _completed(deployment: Deployment, run_id: str) -> None:
    if (status := deployment.client.wait(run_id, timeout_s=_WAIT_S)) != "completed":
        message = f"run {run_id} is {status}"
        raise RuntimeError(message)

"""The workers, their engines, and the work that waits for them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from .facts import listed
from .findings import Found, NotKnown, Severity
from .registry import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.queries.database_health import Backlog

    from .facts import Facts

_SWEEPS: Final = 6
_OVERDUE_AT_LEAST_S: Final = 30.0
_PREFORK: Final = "celery.concurrency.prefork"


@check(
    "workers",
    Severity.ERROR,
    holds="workers answer",
    why="without a worker no step runs, and nobody looks for what is due. A worker that is stopped, or whose "
    "`solo` pool is busy, does not answer either.",
    remedy="start workers: `celery -A your_app worker`",
)
def workers(facts: Facts) -> Iterator[Found | str]:
    """Count those that answered."""
    if facts.workers:
        return
    try:
        executing = facts.work.executing
    except NotKnown:
        executing = 1
    if executing:
        yield "no worker answered"
    else:
        yield Found("no worker answered; there is no work for one at this moment", Severity.WARNING)


@check(
    "engine",
    Severity.ERROR,
    holds="an engine process answers on the control queue",
    why="the engine takes commands, looks for what is due, and recovers the steps of dead workers. Without one, "
    "what a dead worker held stays held for ever.",
    remedy="look into a worker's log for `engine`: it says why its engine does not start. It needs the database, "
    "migrated tables and the app's import path",
)
def engine(facts: Facts) -> Iterator[str]:
    """Send a command that only reads, and wait for the answer."""
    if facts.engine.fault is not None:
        yield facts.engine.fault


@check(
    "overdue",
    Severity.ERROR,
    holds="nothing has been due for long",
    why="a sweeper takes what is due within `interlock_sweep_s`. What is due much longer is taken by nobody: lost "
    "messages are not sent again, and steps of dead workers are not recovered.",
    remedy="start workers with Interlock; where some run, look into their logs for `sweep`",
)
def overdue(facts: Facts) -> Iterator[str]:
    """Compare the oldest timer with several sweeps."""
    patience_s = max(_OVERDUE_AT_LEAST_S, _SWEEPS * facts.settings.sweep_s)
    if facts.work.overdue_s > patience_s:
        yield f"the oldest thing that is due has been so for {facts.work.overdue_s:,.0f} s"


@check(
    "consumers",
    Severity.ERROR,
    holds="every queue with planned work has a consumer",
    why="messages in a queue that nobody consumes wait for ever, and are repeated with ever longer pauses.",
    remedy="start a worker on the queue: `celery -A your_app worker -Q QUEUE`; or correct `queue` in the plan, or "
    "`task_routes`",
)
def consumers(facts: Facts) -> Iterator[Found | str]:
    """Look for a consumer of the queue of each task that is planned."""
    if not facts.workers:
        raise NotKnown("no worker answered")
    for queue, backlogs in _by_queue(facts).items():
        if facts.broker.consumers.get(queue):
            continue
        queued = sum(backlog.queued for backlog in backlogs)
        steps = sum(backlog.steps for backlog in backlogs)
        waiting = f"{queued:,} steps wait in it" if queued else f"{steps:,} steps will go to it"
        holds = f"it holds {facts.broker.lengths.get(queue, 0):,} messages"
        text = f"no worker that answered consumes queue {queue}: {waiting}, {holds}"
        yield Found(text, Severity.ERROR if queued else Severity.WARNING)


@check(
    "known_tasks",
    Severity.ERROR,
    holds="the workers know the tasks that are planned",
    why="Celery drops the message of a task that a worker does not know. It is sent again a few times "
    "(`interlock_max_dispatch_unknown`), then its step fails; where only some workers know it, it depends on "
    "which of them takes it.",
    remedy="import the module of the task in every worker of that queue (`imports`, `include`, `autodiscover_tasks`)",
)
def known_tasks(facts: Facts) -> Iterator[str]:
    """Look for each planned task in the workers that consume its queue."""
    tasks = {worker.name: worker.tasks for worker in facts.workers if worker.tasks is not None}
    for queue, backlogs in _by_queue(facts).items():
        for backlog in backlogs:
            names = [name for name in facts.broker.consumers.get(queue, ()) if name in tasks]
            without = [name for name in names if backlog.task not in tasks[name]]
            if without:
                yield f"{listed(without)} consumes queue {queue} and does not know {backlog.task} ({backlog.steps:,} steps)"


@check(
    "pool",
    Severity.WARNING,
    holds="the pools can interrupt a body",
    why="a pool other than prefork runs bodies in threads or in the worker itself: a pause or a cancel waits until "
    "the body ends by itself, time limits do not stop it, and one that crashes takes the whole worker with it.",
    remedy="use the prefork pool, or bodies that ask `current_step().should_stop()`",
)
def pool(facts: Facts) -> Iterator[str]:
    """Look at the pools of the workers that answered."""
    others = [
        f"{worker.name} ({worker.pool.rpartition('.')[2]})"
        for worker in facts.workers
        if worker.has_interlock and worker.pool not in ("", _PREFORK)
    ]
    if others:
        yield f"pools that cannot interrupt: {listed(others)}"


def _by_queue(facts: Facts) -> dict[str, list[Backlog]]:
    """The planned steps by the queue that they go to, as far as the routing is known."""
    found: dict[str, list[Backlog]] = defaultdict(list)
    for backlog in facts.work.backlogs:
        queue = backlog.queue or facts.queue_of.get(backlog.task)
        if queue is not None:
            found[queue].append(backlog)
    return found

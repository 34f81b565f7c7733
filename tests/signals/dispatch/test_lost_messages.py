"""Which messages are nowhere: a queue is looked into, workers are asked, and what is only on its way is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery import Celery

from interlock.core.sweeper.redispatch import Unclaimed
from interlock.signals.dispatch.lost_messages import LostMessages
from tests.celery_worker import CeleryWorker
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.servers import RedisServer

DEADLINE_S = 20.0

# Pauses of a minute: what is prefetched stays so for the length of a test.
WORKER_APP = """\
import os, time
from celery import Celery
app = Celery("plain", broker=os.environ["BROKER"], broker_connection_retry_on_startup=True)
@app.task(name="missing.sleeps")
def sleeps():
    time.sleep(60)
"""


def _body() -> None:
    """Nobody runs it."""


@pytest.fixture
def app(broker_url: str) -> Iterator[Celery]:
    """An app whose tasks go to three queues."""
    app = Celery("shop", broker=broker_url, set_as_current=False)
    app.conf.task_routes = {"missing.slow": {"queue": "slow"}}
    app.task(_body, name="missing.limited", rate_limit="1/m")
    yield app
    app.close()


class Look:
    """One process's look, with a clock of its own."""

    def __init__(self, app: Celery) -> None:
        self.now = 0.0
        self._missing = LostMessages(app, lambda: self.now)

    def at(self, *unclaimed: Unclaimed) -> frozenset[str]:
        """What a sweep is told; its own question has been answered when this returns."""
        missing = self._missing(unclaimed)
        wait_until(lambda: not self._is_asking(), DEADLINE_S, "an answer")
        return missing

    def _is_asking(self) -> bool:
        thread = self._missing._asking
        return thread is not None and thread.is_alive()


@pytest.fixture
def look(app: Celery) -> Look:
    """A look at the app's broker."""
    return Look(app)


def _unclaimed(task_id: str, task: str = "missing.slow", queue: str | None = None, dispatches: int = 1) -> Unclaimed:
    return Unclaimed(task_id, dispatches, task, queue)


def test_what_is_in_no_queue_and_with_no_worker_is_missing_at_the_next_sweep(app: Celery, look: Look) -> None:
    """Each kind of queue: named by the plan, by a route, the default one; one of them still has its message."""
    app.send_task("missing.other", queue="busy")
    lost = [_unclaimed("a"), _unclaimed("b", "missing.other", "named"), _unclaimed("c", "missing.other")]
    waiting = _unclaimed("d", "missing.other", "busy")
    assert look.at(*lost, waiting) == frozenset()
    assert look.at(*lost, waiting) == {"a", "b", "c"}
    assert look.at(waiting) == frozenset()


def test_where_one_that_seemed_missing_was_claimed_all_are_looked_for_once_more(look: Look) -> None:
    """They were on their way: a commit of ten thousand steps is published for seconds."""
    first, second = _unclaimed("a"), _unclaimed("b")
    look.at(first, second)
    assert look.at(second) == frozenset()
    assert look.at(second) == {"b"}


def test_one_that_was_sent_again_by_another_sweeper_is_looked_for_once_more(look: Look) -> None:
    look.at(_unclaimed("a"))
    again = _unclaimed("a", dispatches=2)
    assert look.at(again) == frozenset()
    assert look.at(again) == {"a"}


def test_what_a_worker_has_taken_and_not_begun_is_not_missing(
    app: Celery, look: Look, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue is empty, and the worker is asked; then not again for a while."""
    monkeypatch.setattr("interlock.signals.dispatch.lost_messages._WORKERS_S", 3.0)  # a late answer means "missing"
    (tmp_path / "plain.py").write_text(WORKER_APP)
    worker = CeleryWorker(
        "plain",
        log=tmp_path / "plain.log",
        concurrency=1,
        env={"BROKER": broker_url},
        args=("-Q", "slow", "--prefetch-multiplier", "4", "--without-gossip", "--without-mingle"),
        cwd=tmp_path,
    )
    worker.start()
    try:
        ids = [app.send_task("missing.sleeps", queue="slow").id for _ in range(4)]
        wait_until(lambda: worker.output.count("received") == len(ids), DEADLINE_S, "the worker has them")
        attempts = [_unclaimed(task_id, "missing.sleeps", "slow") for task_id in ids]
        look.at(*attempts, _unclaimed("lost", "missing.sleeps", "slow"))
        assert look.at(*attempts, _unclaimed("lost", "missing.sleeps", "slow")) == {"lost"}
        worker.kill()
        look.at(*attempts)
        assert look.at(*attempts) == frozenset(), "they are not asked for again at once"
        look.now += 5
        look.at(*attempts)
        assert look.at(*attempts) == set(ids), "on Redis, what a dead worker had comes back after an hour"
    finally:
        worker.kill()


def test_a_task_with_a_rate_limit_is_not_judged(app: Celery, look: Look) -> None:
    """Celery holds its messages back in the worker, and does not say so."""
    limited = _unclaimed("a", "missing.limited")
    assert (look.at(limited), look.at(limited)) == (frozenset(), frozenset())
    app.conf.task_default_rate_limit = "1/m"
    unknown = _unclaimed("b", "missing.unknown")
    assert (look.at(unknown), look.at(unknown)) == (frozenset(), frozenset())


def test_a_broker_that_hangs_keeps_no_sweep_waiting_and_is_asked_by_one_thread(
    app: Celery, hanging: Callable[[], AbstractContextManager[None]]
) -> None:
    missing, lost = LostMessages(app), _unclaimed("a")
    with hanging():
        missing([lost])
        thread = missing._asking
        assert thread is not None
        assert all(missing([lost]) == frozenset() for _ in range(50))
        assert missing._asking is thread
        assert thread.is_alive()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_an_answer_that_took_too_long_is_not_believed(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    look, lost = Look(app), _unclaimed("a")
    queues = LostMessages._of_empty_queues

    def slow(*arguments: object) -> list[Unclaimed]:
        look.now += 11
        return queues(*arguments)  # type: ignore[arg-type] # passed through

    with monkeypatch.context() as patch:
        patch.setattr(LostMessages, "_of_empty_queues", slow)
        look.at(lost)
        assert look.at(lost) == frozenset()
    look.at(lost)
    assert look.at(lost) == {"a"}


def test_a_broker_that_is_away_says_nothing_and_is_asked_again(look: Look, redis_server: RedisServer) -> None:
    lost = _unclaimed("a")
    redis_server.stop()
    assert (look.at(lost), look.at(lost)) == (frozenset(), frozenset())
    redis_server.start()
    look.at(lost)
    assert look.at(lost) == {"a"}


def test_a_router_that_fails_judges_nothing(app: Celery, look: Look) -> None:
    def router(*_: object, **__: object) -> None:
        raise RuntimeError

    app.conf.task_routes = (router,)
    lost = _unclaimed("a")
    assert (look.at(lost), look.at(lost)) == (frozenset(), frozenset())

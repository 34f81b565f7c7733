"""`Client.enqueue` inside the producer's own transaction, with the broker away, and from many threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from redis import Redis
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from interlock import Step, Workflow
from interlock.core.errors import RunNotFound
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from tests.worker.deployment import Deployment


@pytest.fixture(scope="module", autouse=True)
def _worker(deployment: Deployment) -> None:
    deployment.worker("producers", concurrency=2)


@pytest.fixture(scope="module")
def shop(deployment: Deployment) -> Iterator[Engine]:
    """The producer's own engine, on the workflows' database, with a table of its own."""
    engine = create_engine(deployment.database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id text PRIMARY KEY)"))
    yield engine
    engine.dispose()


def _ship(*, queue: str | None = None) -> Workflow:
    return Workflow("ship", "Ship an order.", [Step("a", task_name("add"), (1, 2), queue=queue)])


def _order(session: Session) -> str:
    order = uuid4().hex
    session.execute(text("INSERT INTO orders VALUES (:id)"), {"id": order})
    return order


def _queued(deployment: Deployment, queue: str) -> int:
    with Redis.from_url(deployment.broker.url(0)) as redis:
        return int(redis.llen(queue))


def test_a_commit_starts_the_run_and_stores_the_order(deployment: Deployment, shop: Engine) -> None:
    with Session(shop) as session:
        order = _order(session)
        run_id = deployment.client.enqueue(_ship(), db_session=session)
        with pytest.raises(RunNotFound):
            deployment.client.status(run_id)  # nobody sees it yet
        session.commit()
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    with shop.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM orders WHERE id = :id"), {"id": order}) == 1


@pytest.mark.parametrize("first", ["order", "run"])
def test_a_rollback_leaves_no_run_and_publishes_nothing(deployment: Deployment, shop: Engine, first: str) -> None:
    """Also where the run is the first thing in the transaction, which has not begun by then."""
    queue = f"rolled-back-{uuid4().hex[:8]}"
    with Session(shop) as session:
        if first == "order":
            _order(session)
        run_id = deployment.client.enqueue(_ship(queue=queue), db_session=session)
        session.rollback()
        with pytest.raises(RunNotFound):
            deployment.client.status(run_id)
        committed = deployment.client.enqueue(_ship(queue=queue), db_session=session)
        assert _queued(deployment, queue) == 0, "published before the commit"
        session.commit()
    assert _queued(deployment, queue) == 1
    with Redis.from_url(deployment.broker.url(0), decode_responses=True) as redis:
        assert deployment.step_id(committed) in redis.lrange(queue, 0, -1)[0]
    deployment.client.cancel(committed)


def test_a_savepoint_that_is_rolled_back_takes_its_run_with_it(deployment: Deployment, shop: Engine) -> None:
    with Session(shop) as session:
        kept = deployment.client.enqueue(_ship(), db_session=session)
        savepoint = session.begin_nested()
        gone = deployment.client.enqueue(_ship(), db_session=session)
        savepoint.rollback()
        session.commit()
    assert deployment.client.wait(kept, timeout_s=DEADLINE_S) == "completed"
    with pytest.raises(RunNotFound):
        deployment.client.status(gone)


def test_a_context_manager_that_raises_rolls_back(deployment: Deployment, shop: Engine) -> None:
    def order() -> None:
        with Session(shop) as session, session.begin():
            ids.append(deployment.client.enqueue(_ship(), db_session=session))
            raise ZeroDivisionError

    ids: list[str] = []
    with pytest.raises(ZeroDivisionError):
        order()
    with pytest.raises(RunNotFound):
        deployment.client.status(ids[0])


def test_one_idempotency_key_raced_by_eight_threads_is_one_run(deployment: Deployment) -> None:
    for key in (uuid4().hex for _ in range(5)):

        def enqueue(_: int, key: str = key) -> str:
            return str(deployment.client.enqueue(_ship(), idempotency_key=key))

        with ThreadPoolExecutor(8) as threads:
            ids = set(threads.map(enqueue, range(8)))
        assert len(ids) == 1
        run_id = ids.pop()
        assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        assert deployment.ledger.of(deployment.step_id(run_id)) == ["add"]


def test_a_run_committed_while_the_broker_is_down_starts_when_it_is_back(deployment: Deployment, shop: Engine) -> None:
    deployment.broker.stop()
    try:
        with Session(shop) as session:
            _order(session)
            run_id = deployment.client.enqueue(_ship(), db_session=session)
            session.commit()
        assert deployment.client.status(run_id)["status"] == "executing"
    finally:
        deployment.broker.start()
    assert deployment.client.wait(run_id, timeout_s=60) == "completed"
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["add"]
    with deployment.remote_client() as remote:  # the control queue has come back, too
        wait_until(lambda: _answers(remote), 60, "the control queue is consumed again")


def _answers(client: Any) -> bool:
    try:
        client.list()
    except TimeoutError:
        return False
    return True

"""Other pools, the other database, and the ready app from an empty folder."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from celery import Celery

from interlock import Client, Step, Workflow
from tests.core.checker import check
from tests.servers import RedisServer, wait_until
from tests.worker.deployment import (
    BRIEF,
    BRIEF_LEASE_S,
    CALM,
    DEADLINE_S,
    Deployment,
    engine_pid,
    gate,
    held,
    task_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=["solo", "threads"])
def pool(request: pytest.FixtureRequest, deployment: Deployment) -> Iterator[str]:
    """A worker of that pool."""
    name = str(request.param)
    worker = deployment.worker(name, concurrency=1 if name == "solo" else 4, args=("--pool", name), **BRIEF)
    yield name
    worker.terminate()


def test_steps_run_and_the_engine_works(deployment: Deployment, pool: str) -> None:
    a = Step("a", task_name("add"), (1, 2))
    flaky = Step("flaky", task_name("flaky"), (2,))
    run_id, status = deployment.run(a, flaky, Step("b", task_name("echo"), (a.result,), after=[a, flaky]))
    assert status == "completed"
    assert deployment.client.result(run_id) == {"b": 3}
    with deployment.remote_client() as remote:
        assert remote.status(run_id)["status"] == "completed"
    assert engine_pid(deployment.workers[-1])
    assert deployment.workers[-1].log.stem == pool


def test_a_chain_is_not_run_through(deployment: Deployment, pool: str) -> None:
    """Its bodies run in MAIN or its threads, not in a process of their own: each step has a message."""
    steps = [Step("a", task_name("echo"), (pool,)), Step("b", task_name("echo"), (pool,), after="a")]
    run_id = deployment.client.enqueue(Workflow("chain", "Show that it works.", steps, run_through=True))
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert not any((row.meta or {}).get("carrier") for row in deployment.history(run_id))


def test_a_body_longer_than_the_lease_is_not_declared_lost(deployment: Deployment, pool: str) -> None:
    """In the solo pool the body runs in MAIN, which cannot say meanwhile that it is alive."""
    with gate(deployment, uuid4().hex) as shut:
        run_id = deployment.enqueue(held("a", shut, pool))
        deployment.begun(run_id)
        lease = deployment.step(run_id).lease_until
        wait_until(
            lambda: (deployment.step(run_id).lease_until - lease).total_seconds() > 1.5 * BRIEF_LEASE_S,
            DEADLINE_S,
            "a lease and a half",
        )
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert (deployment.step(run_id).attempt, deployment.step(run_id).losses) == (1, 0)


def test_interrupt_behaves_as_drain_and_the_worker_has_said_so(deployment: Deployment, pool: str) -> None:
    assert "pause in mode interrupt waits for it (drain)" in deployment.workers[-1].output
    with gate(deployment, uuid4().hex) as shut:
        run_id = deployment.enqueue(held("a", shut, pool), Step("b", task_name("echo"), after="a"))
        step_id = deployment.begun(run_id)["a"]
        deployment.client.pause(run_id)
    wait_until(lambda: deployment.step(run_id).late, DEADLINE_S, "the result is kept")
    assert deployment.ledger.of(step_id) == ["begin", "end"]
    assert deployment.step(run_id, "b").status == "pending"
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.ledger.of(step_id) == ["begin", "end"]


def test_a_cancel_wins_over_a_body_that_cannot_be_interrupted(deployment: Deployment, pool: str) -> None:
    assert pool
    with gate(deployment, uuid4().hex) as shut:
        run_id = deployment.enqueue(held("a", shut))
        deployment.begun(run_id)
        with deployment.remote_client() as remote:
            remote.cancel(run_id)
    wait_until(lambda: deployment.step(run_id).drain_token is None, DEADLINE_S, "the body has ended")
    assert deployment.step(run_id).status == "cancelled"


def test_sqlite_carries_two_hundred_steps_with_two_children(
    worker_redis: tuple[RedisServer, RedisServer], migrated_sqlite_url: str, tmp_path: Path
) -> None:
    steps = [Step(f"s{number}", task_name("echo"), (number,), queue="sqlite") for number in range(199)]
    end = Step("end", task_name("total"), ([step.result for step in steps],), after=steps, queue="sqlite")
    with Deployment(*worker_redis, migrated_sqlite_url, tmp_path, settings=CALM) as deployment:
        worker = deployment.worker("sqlite", concurrency=2, args=("--queues", "sqlite"))
        run_id = deployment.enqueue(*steps, end)
        assert deployment.client.wait(run_id, timeout_s=60) == "completed"
        assert deployment.client.result(run_id) == {"end": sum(range(199))}
        assert all(row.attempt == 1 for row in deployment.steps(run_id).values())
        worker.terminate()
        assert "database is locked" not in worker.output
        assert "Traceback" not in worker.output
        check(deployment.database)


def test_the_ready_app_starts_from_an_empty_folder_with_nothing_but_the_environment(
    deployment: Deployment, tmp_path: Path
) -> None:
    """`celery -A interlock.worker worker`: tasks come from the modules named in INTERLOCK_IMPORTS."""
    folder, modules = tmp_path / "empty", tmp_path / "modules"
    folder.mkdir()
    modules.mkdir()
    (modules / "shop.py").write_text("from celery import shared_task\n\n@shared_task\ndef price(a): return a * 3\n")
    name = f"ready-{uuid4().hex[:8]}"
    worker = deployment.worker(
        name,
        app="interlock.worker",
        cwd=folder,
        args=("--queues", name),
        INTERLOCK_IMPORTS="shop",
        INTERLOCK_CHANNEL_PREFIX=name,
        PYTHONPATH=str(modules),
    )
    run_id, status = deployment.run(Step("a", "shop.price", (4,), queue=name))
    assert (status, deployment.client.result(run_id)) == ("completed", {"a": 12})
    prefixed = deployment.client.settings.model_copy(
        update={"channel_prefix": name, "database_url": None, "command_timeout_s": 20}
    )
    with Client(Celery(broker=deployment.broker.url(0), set_as_current=False), settings=prefixed) as remote:
        assert remote.enqueue(Workflow("w", "x", [Step("a", "shop.price", (1,), queue=name)]))
    worker.terminate()
    assert not list(folder.iterdir()), "it left something in the folder"

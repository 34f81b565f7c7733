"""Each named place is reached by a deployment that does everything once, and none is counted where no plan is obeyed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from redis import Redis

from interlock.core.fault_points import PLACES
from interlock.core.model.retry import RetryPolicy
from tests.fault_plans import FaultRule, injected
from tests.faults.steps import held, step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Victims
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults

NOTE = FaultRule(place="*", action="note", times=None)


def test_every_place_is_reached(deployment: Deployment, victims: Victims, shut: str) -> None:
    """Worker, engine and client note in one folder where they have been."""
    victim = victims(NOTE, concurrency=2, INTERLOCK_MAX_DISPATCH_UNKNOWN="1")
    with injected(victim.plan.folder, NOTE) as plan:
        _do_everything(deployment, victim.queue, shut)
        missing = {place for place in PLACES if not plan.hits(place)}
        wait_until(lambda: not {each for each in missing if not plan.hits(each)}, DEADLINE_S, f"the rest: {missing}")


def test_without_a_plan_nothing_is_counted(
    deployment: Deployment, victims: Victims, shut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with no variable in the environment; and an empty one is none."""
    monkeypatch.delenv("INTERLOCK_FAULTS", raising=False)
    victim = victims(concurrency=2, INTERLOCK_FAULTS="", INTERLOCK_MAX_DISPATCH_UNKNOWN="1")
    _do_everything(deployment, victim.queue, shut)
    assert not any(victim.plan.hits(place) for place in PLACES)
    assert not list(victim.plan.folder.iterdir())
    with injected(tmp_path, NOTE) as plan:
        assert not any(plan.hits(place) for place in PLACES)


def _do_everything(deployment: Deployment, queue: str, shut: str) -> None:
    """Steps that end in every way, verbs by every door, and what only sweeper and heartbeat do."""
    later = RetryPolicy(max_attempts=2, initial_delay_s=0.2, jitter=0)
    run_id, status = deployment.run(
        step("a", "fails_first", 1, queue=queue, retry=later),
        step("b", "saves", queue=queue, after=["a"]),
    )
    assert status == "completed"
    run_id, status = deployment.run(step("a", "echo", {"$expr": "sum(input)"}, queue=queue), input="no list")
    assert status == "failed"
    through = [step("a", "echo", queue=queue), step("b", "echo", queue=queue, after=["a"], run_through=True)]
    run_id, status = deployment.run(*through)
    assert status == "completed"
    run_id, status = deployment.run(step("a", "unheard_of", queue=queue))
    assert status == "failed"
    run_id = deployment.enqueue(held("a", shut, queue=queue))
    deployment.begun(run_id)
    deployment.app.control.revoke(deployment.step(run_id).task_id, terminate=True, signal="SIGUSR1")
    deployment.wait_for_status(run_id, "cancelled", "a")
    run_id = deployment.enqueue(held("a", shut, queue=queue))
    deployment.begun(run_id)
    with deployment.remote_client(command_timeout_s=DEADLINE_S) as remote:
        remote.pause(run_id, request_id=uuid4().hex)
    deployment.client.resume(run_id)
    with deployment.database.session() as session:
        deployment.controller(session).cancel_workflow(run_id)
    run_id = deployment.enqueue(step("a", "echo", queue=f"lost-{queue}"))
    with Redis.from_url(deployment.broker.url(0)) as redis:
        redis.delete(f"lost-{queue}")
        wait_until(lambda: redis.llen(f"lost-{queue}"), DEADLINE_S, "the lost message is sent again")
    deployment.client.cancel(run_id)

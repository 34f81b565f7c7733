"""`verify` on the database that a real worker has left, runs of every fate: it is clean.

That corruptions are found is shown on the same runs without a worker, in tests/core/verify.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import open_database
from interlock.core.verify import Verification, verify
from tests.worker.deployment import CALM, DEADLINE_S, Deployment, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from interlock.core import Database
    from tests.servers import RedisServer

pytestmark = pytest.mark.long


def _step(key: str, task: str, *args: object, after: str = "", **options: Any) -> dict[str, Any]:
    return {"key": key, "task": task_name(task), "args": list(args), "after": after.split(), **options}


def _gate(key: str, after: str = "") -> dict[str, Any]:
    return {"key": key, "approval": True, "after": after.split()}


def _hold(key: str, **options: Any) -> dict[str, Any]:
    return _step(key, "hold", "never", **options)


PLANS: dict[str, dict[str, Any]] = {
    "completed": {
        "steps": [
            _step("a", "add", 1, 2),
            _step("flaky", "flaky", 2, after="a"),
            _step("unwanted", "echo", after="a", when="`false`"),
            _step("items", "echo", {"$expr": "item"}, after="flaky", map={"over": "input"}),
            _step("last", "total", {"$expr": "results.items"}, after="items"),
        ]
    },
    "failed": {
        "steps": [
            _step("first", "add", 1, 2),
            _step("bad", "fail", "no", after="first"),
            _hold("beside", after="first"),
            _step("behind", "echo", after="bad"),
        ]
    },
    "approved": {"steps": [_gate("gate"), _step("a", "echo", "yes", after="gate")]},
    "waiting": {"steps": [_gate("gate"), _step("a", "echo", after="gate")]},
    "paused": {"steps": [_hold("a"), _step("behind", "echo", after="a")]},
    "cancelled": {"steps": [_hold("a"), _gate("gate")]},
    "held": {
        "max_parallel": 1,
        "steps": [
            _hold("h"),
            _step("beside", "echo"),
            _step("behind", "echo", after="h"),
            _gate("gate"),
            _step("last", "echo", after="behind gate"),
        ],
    },
    "mapping": {
        "steps": [
            _hold("m", map={"over": "input", "max_parallel": 1}),
            _step("behind", "echo", after="m"),
        ]
    },
    "draft": {"steps": [_step("a", "echo")]},
}


class _Workload:
    """Runs of every fate; at the end two steps are held by a worker that is killed."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._client = deployment.client

    def carry_out(self) -> None:
        worker = self._deployment.worker("one", concurrency=2)
        self._ended()
        self._interrupted()
        self._enqueue("draft", start_at=datetime.now(UTC) + timedelta(days=1))
        self._wait("waiting", "waiting_approval")
        held, mapping = self._enqueue("held"), self._enqueue("mapping", input=[1, 2])
        self._deployment.begun(held, ("h",))
        self._deployment.begun(mapping, ("m.0",))
        worker.kill()

    def _enqueue(self, name: str, **options: Any) -> str:
        plan = {"name": name, "task_description": "be verified", **PLANS[name]}
        return self._client.enqueue(plan, **options)

    def _wait(self, name: str, status: str, **options: Any) -> str:
        run_id = self._enqueue(name, **options)
        self._deployment.wait_for_status(run_id, status)
        return run_id

    def _ended(self) -> None:
        self._wait("completed", "completed", input=[1, 2, 3], idempotency_key="once")
        failed = self._wait("failed", "failed")
        again = self._client.rerun(failed)
        self._deployment.wait_for_status(again, "failed")
        approved = self._wait("approved", "waiting_approval")
        self._client.approve(approved, "gate")
        self._deployment.wait_for_status(approved, "completed")

    def _interrupted(self) -> None:
        paused, cancelled = self._enqueue("paused"), self._enqueue("cancelled")
        steps = {run_id: self._deployment.begun(run_id)["a"] for run_id in (paused, cancelled)}
        with self._deployment.remote_client() as remote:
            remote.pause(paused)
            remote.cancel(cancelled)
        for step_id in steps.values():
            self._deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")


@pytest.fixture(params=["sqlite", "postgresql"])
def left_behind(
    request: pytest.FixtureRequest, worker_redis: tuple[RedisServer, RedisServer], tmp_path: Path
) -> Iterator[Database]:
    """The database as the workload has left it."""
    kind = {"sqlite": "migrated_sqlite_url", "postgresql": "migrated_postgres_url"}[request.param]
    url: str = request.getfixturevalue(kind)
    with Deployment(*worker_redis, url, tmp_path, settings=CALM, answer_s=DEADLINE_S) as deployment:
        _Workload(deployment).carry_out()
    database = open_database(url)
    yield database
    database.dispose()


def test_what_a_killed_worker_leaves_is_clean(left_behind: Database) -> None:
    verification = Verification()
    assert list(verify(left_behind, verification)) == []
    assert verification.clean
    assert (verification.runs, verification.without_history) == (len(PLANS) + 1, 0)

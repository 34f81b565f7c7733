"""Rows that an older release has written: the columns of today have their defaults, and there is no history.

They are read and moved by every verb, by the door of the client and by that of the control queue, and whoever can go on does.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from interlock.core.database.tables import WorkflowRun
from interlock.core.errors import CommandTimeout, InterlockError
from interlock.core.verify import Verification, verify
from tests.faults.steps import task
from tests.worker.deployment import DEADLINE_S, Deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from interlock import Client
    from tests.faults.conftest import FaultReport
    from tests.servers import PostgresDatabases, RedisServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STATES: Final = (
    ("draft", "pending"),
    ("planning", "pending"),
    ("executing", "pending"),
    ("executing", "running"),
    ("executing", "failed"),
    ("executing", "waiting_approval"),
    ("executing", "paused"),
    ("paused", "pending"),
    ("paused", "paused"),
    ("waiting_approval", "waiting_approval"),
    ("completed", "completed"),
    ("failed", "failed"),
    ("cancelled", "cancelled"),
)
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
PLAN: Final = {"steps": [{"key": "b", "task": task("echo")}]}

READING: Final[dict[str, Callable[[Client, str], Any]]] = {
    "status": lambda client, run_id: client.status(run_id),
    "result": lambda client, run_id: client.result(run_id),
    "explain": lambda client, run_id: client.explain(run_id),
    "history": lambda client, run_id: client.history(run_id),
    "list": lambda client, _: client.list(limit=500),
}
MOVING: Final[dict[str, Callable[[Client, str], Any]]] = {
    "pause": lambda client, run_id: client.pause(run_id),
    "pause a step": lambda client, run_id: client.pause(run_id, "a"),
    "resume": lambda client, run_id: client.resume(run_id),
    "resume a step": lambda client, run_id: client.resume(run_id, "a"),
    "cancel": lambda client, run_id: client.cancel(run_id),
    "approve": lambda client, run_id: client.approve(run_id, "a"),
    "reject": lambda client, run_id: client.reject(run_id, "a"),
    "retry": lambda client, run_id: client.retry(run_id, "a"),
    "settle": lambda client, run_id: client.settle(run_id, "a", 1, "by hand"),
    "rerun": lambda client, run_id: client.rerun(run_id),
    "set a plan": lambda client, run_id: client.set_plan(run_id, PLAN),
    "start": lambda client, run_id: client.start(run_id),
}

#: There is no request to decide, and it is not known who paused a step by itself.
NEED_MORE: Final = frozenset({"approve", "reject", "resume a step"})


@pytest.fixture(scope="module")
def old(
    fault_redis: tuple[RedisServer, RedisServer, RedisServer],
    postgres_databases: PostgresDatabases,
    postgres_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """A deployment with one worker; the checker of histories, which these rows lack, is not asked."""
    broker, events, ledger = fault_redis
    folder = tmp_path_factory.mktemp("deployment")
    with (
        postgres_databases.fresh(postgres_template) as url,
        Deployment(broker, events, url, folder, ledger=ledger, app="tests.faults.steps_app") as deployment,
    ):
        yield deployment
        deployment.stop_workers()


def _insert(deployment: Deployment, status: str, step: str) -> str:
    """A run with one step, as an older release may have left it."""
    run_id = str(uuid4())
    with deployment.database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO workflow_runs (id, session_id, status, task_description) VALUES (:id, 'default', :status, 'old')"
            ),
            {"id": run_id, "status": status},
        )
        connection.execute(
            text(
                "INSERT INTO workflow_steps (id, run_id, session_id, key, status, task)"
                " VALUES (:id, :run_id, 'default', 'a', :status, :task)"
            ),
            {"id": str(uuid4()), "run_id": run_id, "status": step, "task": task("echo")},
        )
    return run_id


def _unreadable(client: Client, runs: Sequence[str]) -> list[str]:
    """What could not be read: reading refuses nothing."""
    faults = []
    for run_id in runs:
        for name, read in READING.items():
            try:
                read(client, run_id)
            except Exception as error:  # noqa: BLE001 - the test's finding
                faults.append(f"{name}: {error!r}")
    return faults


def _move(client: Client, run_id: str, name: str) -> bool | None:
    """Whether a verb was carried out; None where it fails by anything but a refusal that says what it is about."""
    try:
        MOVING[name](client, run_id)
    except CommandTimeout:
        return None
    except InterlockError:
        return False
    except Exception:  # noqa: BLE001 - counted
        return None
    return True


def test_older_rows_are_read_and_moved_by_every_verb_and_what_can_go_on_does(
    old: Deployment, fault_report: FaultReport
) -> None:
    """F30: what was refused is refused with a typed error; in the end all is cancelled or has ended, and verify finds nothing."""
    untouched = {states: _insert(old, *states) for states in STATES}
    carried_out: dict[str, set[str]] = {}
    with old.remote_client(command_timeout_s=DEADLINE_S) as remote:
        doors = (old.client, remote)
        old.worker("old-rows", INTERLOCK_LEASE_S="15")
        old.wait_for_status(untouched["executing", "pending"], "completed")
        assert [_unreadable(client, list(untouched.values())) for client in doors] == [[], []]
        for client, states, name in product(doors, STATES, MOVING):
            moved = _move(client, _insert(old, *states), name)
            assert moved is not None, f"{name} of a step that is {states[1]} in a workflow that is {states[0]}"
            if moved:
                carried_out.setdefault(name, set()).add(states[0])
    assert set(carried_out) == set(MOVING) - NEED_MORE
    assert carried_out["cancel"] >= {run for run, _ in STATES} - {"completed", "failed"}
    with old.database.session() as session:
        live = list(session.scalars(select(WorkflowRun.id).where(WorkflowRun.status.not_in(ENDED))))
    for run_id in live:
        _move(old.client, run_id, "cancel")
    verification = Verification()
    found = [str(finding) for finding in verify(old.database, verification)]
    assert found == []
    assert verification.without_history >= len(STATES)
    runs = 2 * len(STATES) * len(MOVING)
    fault_report(fault="F30", injected="every verb on rows of an older release", runs=runs, lost=len(found))

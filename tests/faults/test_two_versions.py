"""Two releases at once: the tables are migrated under load, and workers of both run the same steps."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import uuid4

import pytest

from interlock.migrations import current
from tests.faults.next_version import NEXT_REVISION, NextVersion
from tests.faults.steps import step
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Collection

    from interlock import Step
    from tests.faults.conftest import FaultReport
    from tests.worker.deployment import Deployment

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

AT_ONCE: Final = 4
PATIENCE_S: Final = 60.0
LEASE_S: Final = "15"  # a migration may have to wait for a lock, and everybody else behind it


@pytest.fixture
def following(tmp_path_factory: pytest.TempPathFactory) -> NextVersion:
    """The next release."""
    return NextVersion(tmp_path_factory.mktemp("next"))


class Load:
    """Runs, enqueued and waited for by a thread, a few at a time, until the block ends."""

    def __init__(self, deployment: Deployment, queue: str) -> None:
        self._deployment, self._queue = deployment, queue
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.statuses: dict[str, str] = {}
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def wait_for_more(self, runs: int) -> None:
        """Wait until so many runs have ended from now on."""
        goal = len(self.statuses) + runs
        wait_until(lambda: len(self.statuses) >= goal or self.failure, PATIENCE_S, f"{runs} more runs have ended")
        assert self.failure is None

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                runs = [self._deployment.enqueue(*self._steps()) for _ in range(AT_ONCE)]
                for run_id in runs:
                    self.statuses[run_id] = self._deployment.client.wait(run_id, timeout_s=PATIENCE_S)
        except BaseException as error:  # noqa: BLE001 - the test's failure
            self.failure = error

    def _steps(self) -> list[Step]:
        """A fan-out and a join, a step that fails first, and one that stores a checkpoint."""
        where = {"queue": self._queue}
        branches = [step(f"b{number}", "echo", number, after=["root"], **where) for number in range(4)]
        last = [
            step("join", "fails_first", 1, after=["b0", "b1", "b2", "b3"], **where),
            step("end", "saves", after=["join"], **where),
        ]
        return [step("root", "echo", "root", **where), *branches, *last]


def _workers_of(deployment: Deployment, runs: Collection[str]) -> set[str]:
    """Who moved steps of these runs."""
    return {
        row.transitioned_by
        for run_id in runs
        for row in deployment.history(run_id, None)
        if row.to_state == "completed"
    }


def test_tables_are_migrated_while_workers_of_the_release_before_run_steps_and_both_go_on(
    deployment: Deployment, following: NextVersion, fault_report: FaultReport
) -> None:
    """F30: the tables first, as README.md says; then the new workers; the old ones still run, and one more of them is started."""
    queue = f"versions-{uuid4().hex[:8]}"
    options: dict[str, Any] = {
        "args": ("--queues", queue),
        "INTERLOCK_LEASE_S": LEASE_S,
        "INTERLOCK_REDISPATCH_S": "30",
    }
    old = deployment.worker("old", **options)
    with Load(deployment, queue) as load:
        load.wait_for_more(AT_ONCE)
        began = time.monotonic()
        printed = following.interlock("db", "upgrade", database_url=deployment.database_url)
        took_s = time.monotonic() - began
        assert current(deployment.database_url) == NEXT_REVISION, printed
        load.wait_for_more(2 * AT_ONCE)
        new = deployment.worker("new", **options, **following.environment)
        late = deployment.worker("late", **options)
        before = set(load.statuses)
        everyone = {old.node, new.node, late.node}
        wait_until(
            lambda: _workers_of(deployment, set(load.statuses) - before) >= everyone or load.failure,
            PATIENCE_S,
            "workers of both releases have run steps",
        )
    assert load.failure is None
    assert set(load.statuses.values()) == {"completed"}
    assert "newer than" in late.output, "who is behind is told"
    assert "newer than" not in new.output
    failed = [row for run_id in load.statuses for row in deployment.history(run_id) if row.to_state == "failed"]
    # Each join fails once, as it is meant to; nothing is lost, and nothing fails because of the migration.
    assert [
        (row.step_key, row.created_at, row.meta)
        for row in failed
        if row.meta["cause"] != "error" or row.step_key != "join"
    ] == []
    assert len(failed) == len(load.statuses)
    following.interlock("verify", database_url=deployment.database_url)
    fault_report(
        fault="F30",
        injected="tables migrated under load, both releases at work",
        recovery_s=took_s,
    )

"""After an outage healthy workers renew their leases before a sweeper takes them for lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import OperationalError

from interlock.core.attempts.leases import renew_leases
from interlock.core.settings import Settings
from interlock.core.sweeper.expired_attempts import ExpiredAttempts
from interlock.core.sweeper.expiry_gate import ExpiryGate
from interlock.core.sweeper.sweeper import Sweeper
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")

SETTINGS = Settings(lease_s=30, heartbeat_s=10, sweep_s=5)


class Time:
    """A clock to be moved by hand, and a sweeper that lives by it."""

    def __init__(self, database: Database) -> None:
        self.now = 1_000.0
        gate = ExpiryGate(SETTINGS, lambda: self.now)
        self.sweeper = Sweeper(database, SETTINGS, clock=lambda: self.now, expiry_gate=gate)

    def sweep_for(self, seconds: float) -> list[int]:
        """Sweep every five seconds; how many were lost each time."""
        lost = [self.sweeper.sweep().lost]
        for _ in range(int(seconds / SETTINGS.sweep_s)):
            self.now += SETTINGS.sweep_s
            lost.append(self.sweeper.sweep().lost)
        return lost


@pytest.fixture
def time(unchecked_database: Database) -> Time:
    return Time(unchecked_database)


@pytest.fixture
def held(controller: WorkflowController, worker: WorkerDouble) -> str:
    """A run whose only body is at work."""
    run_id = controller.enqueue_workflow(steps("a", retry={"initial_delay_s": 0.0}), task_description="x")
    worker.claim("a")
    return run_id


def test_a_sweeper_that_has_just_started_waits_a_heartbeat_and_a_half(time: Time, rows: Rows, held: str) -> None:
    rows.make_due(held, "a", "lease_until")
    assert time.sweep_for(15) == [0, 0, 0, 1]


def test_a_healthy_sweeper_recovers_a_crash_at_its_next_sweep(time: Time, rows: Rows, held: str) -> None:
    assert not any(time.sweep_for(15))
    rows.make_due(held, "a", "lease_until")
    time.now += SETTINGS.sweep_s
    assert time.sweeper.sweep().lost == 1


def test_a_body_that_was_healthy_through_an_outage_is_not_lost(
    time: Time,
    rows: Rows,
    worker: WorkerDouble,
    held: str,
    unchecked_database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("connection refused"))

    assert not any(time.sweep_for(20))
    with monkeypatch.context() as outage:
        outage.setattr(unchecked_database, "reading", away)
        for _ in range(8):
            time.now += SETTINGS.sweep_s
            with pytest.raises(OperationalError):
                time.sweeper.sweep()
    rows.make_due(held, "a", "lease_until")
    assert time.sweep_for(10) == [0, 0, 0]
    renew_leases(unchecked_database, SETTINGS, [worker.held["a"].task_id])
    assert not any(time.sweep_for(30))
    worker.complete("a")
    assert rows.run(held).status == "completed"


def test_what_did_not_come_back_from_an_outage_is_lost(time: Time, rows: Rows, held: str) -> None:
    assert not any(time.sweep_for(20))
    rows.make_due(held, "a", "lease_until")
    time.now += 40
    assert time.sweep_for(15) == [0, 0, 0, 1]


def test_an_outage_between_the_search_and_the_lock_counts_too(
    time: Time, rows: Rows, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stood still, and no statement has failed."""
    enter = ExpiredAttempts.enter

    def late(self: ExpiredAttempts, due: object) -> object:
        time.now += 40
        return enter(self, due)  # type: ignore[arg-type]

    assert not any(time.sweep_for(20))
    rows.make_due(held, "a", "lease_until")
    with monkeypatch.context() as patched:
        patched.setattr(ExpiredAttempts, "enter", late)
        assert time.sweep_for(0) == [0]
    assert time.sweep_for(15)[-1] == 1


def test_a_time_limit_ends_an_attempt_whatever_the_gate_says(
    time: Time, controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a", timeout_s=5), task_description="x")
    worker.claim("a")
    rows.make_due(run_id, "a", "timeout_at")
    assert time.sweeper.sweep().timed_out == 1


def test_sweeps_that_are_rarer_than_heartbeats_still_expire_leases() -> None:
    now = 0.0
    gate = ExpiryGate(Settings(lease_s=3, heartbeat_s=1, sweep_s=5), lambda: now)
    gate.database_answered()
    now = 5.0
    gate.database_answered()
    assert gate.is_open

"""The schedule with a real beat and a real worker: many ticks, one run a day."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from celery.schedules import crontab

from examples.beat_schedule import application
from interlock import Client
from tests.processes import spawn
from tests.servers import ROOT, CeleryWorker, wait_until

if TYPE_CHECKING:
    from pathlib import Path

_APP = "examples.beat_schedule.application"
_TICKS = 4
_TICK = "Task examples.beat_schedule.tasks.enqueue_report["
_DEADLINE_S = 30


def test_the_report_is_due_at_six_in_the_morning() -> None:
    (entry,) = application.app.conf.beat_schedule.values()
    assert entry["schedule"] == crontab(hour=6, minute=0)


def _ticks(worker: CeleryWorker) -> int:
    return sum(_TICK in line and "succeeded" in line for line in worker.output.splitlines())


@pytest.mark.timeout(90)
def test_however_often_beat_ticks_a_day_has_one_report(
    tmp_path: Path, migrated_sqlite_url: str, broker_url: str
) -> None:
    environment = {
        **os.environ,
        "INTERLOCK_DATABASE_URL": migrated_sqlite_url,
        "INTERLOCK_SWEEP_S": "0.3",
        "INTERLOCK_HEARTBEAT_S": "0.5",
        "INTERLOCK_WATCH_POLL_S": "1",
        "CELERY_BROKER_URL": broker_url,
        "REPORT_EVERY_S": "0.3",
    }
    beat_command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        _APP,
        "beat",
        "--schedule",
        str(tmp_path / "beat"),
        "--pidfile=",
    ]
    with CeleryWorker(_APP, log=tmp_path / "worker.log", env=environment, cwd=ROOT) as worker:
        beat = spawn(beat_command, log=tmp_path / "beat.log", cwd=ROOT, parent_gone=signal.SIGTERM, env=environment)
        try:
            wait_until(lambda: _ticks(worker) >= _TICKS, _DEADLINE_S, f"{_TICKS} ticks")
        finally:
            beat.terminate()
            beat.wait(timeout=_DEADLINE_S)
        with Client(database_url=migrated_sqlite_url) as client:
            runs = client.list(name="daily-report")
            for run in runs:
                assert client.wait(run["run_id"], timeout_s=_DEADLINE_S) == "completed"
            days = [client.result(run["run_id"])["write"].partition(":")[0] for run in runs]
    assert len(set(days)) == len(runs)
    assert 1 <= len(runs) < _TICKS  # two, where midnight came between

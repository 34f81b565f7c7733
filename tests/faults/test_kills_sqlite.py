"""F1 to F5, F9 and F13 on SQLite, whose claims and completions take another way through the code than PostgreSQL's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from interlock.migrations import upgrade
from tests.fault_plans import FaultRule, injected
from tests.faults.conftest import APP, checker_of
from tests.faults.steps import step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.conftest import FaultReport, Victims
    from tests.servers import RedisServer

pytestmark = pytest.mark.faults

# What has been done of step a when the process is killed: how often its body began in all, and its history.
KILLS = {
    "claim.commit": (1, ["pending", "running", "completed"]),
    "claim.committed": (1, ["pending", "running", "failed", "running", "completed"]),
    "body.end": (2, ["pending", "running", "failed", "running", "completed"]),
    "complete.commit": (2, ["pending", "running", "failed", "running", "completed"]),
    "complete.committed": (1, ["pending", "running", "completed"]),
    "dispatch.published": (1, ["pending", "running", "completed"]),
}


@pytest.fixture(scope="module")
def deployment(
    fault_redis: tuple[RedisServer, RedisServer, RedisServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Broker, events and ledger beside a SQLite file."""
    broker, events, ledger = fault_redis
    folder: Path = tmp_path_factory.mktemp("deployment")
    url = f"sqlite:///{folder / 'interlock.db'}"
    upgrade(url)
    with Deployment(broker, events, url, folder, ledger=ledger, app=APP) as deployment:
        checker_of(deployment)
        yield deployment
        deployment.stop_workers()


@pytest.mark.parametrize("place", KILLS)
def test_killed_at_each_place_the_step_and_what_follows_are_completed_once(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, place: str
) -> None:
    """F1 to F5: before and behind the claim, the body, the completion, and the publishing of what follows."""
    bodies, moves = KILLS[place]
    victim = victims(FaultRule(place=place, action="crash"))
    run_id = deployment.enqueue(
        step("a", "echo", "a", queue=victim.queue), step("b", "echo", "b", queue=victim.queue, after=["a"])
    )
    struck = victim.struck(place)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    number = {"claim.commit": 1, "claim.committed": 2, "body.end": 3, "complete.commit": 3}.get(place, 5)
    fault_report(fault=f"F{number}", injected=f"kill -9 at {place}, SQLite", recovery_s=time.monotonic() - struck)
    assert deployment.moves(run_id, "a") == moves
    assert deployment.moves(run_id, "b") == ["pending", "running", "completed"]
    step_id = deployment.step_id(run_id)
    begun = [each for each in deployment.ledger.effects() if (each["step_id"], each["what"]) == (step_id, "begin")]
    assert len(begun) == bodies


@pytest.mark.parametrize("place", ["claim.committed", "complete.committed"])
def test_a_report_whose_answer_was_lost_is_recorded_once(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, place: str
) -> None:
    """F13: what was applied is found when it is reported again."""
    victim = victims(FaultRule(place=place, action="lose_answer"))
    run_id = deployment.enqueue(
        step("a", "echo", "a", queue=victim.queue), step("b", "echo", "b", queue=victim.queue, after=["a"])
    )
    struck = victim.struck(place)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F13", injected=f"answer lost at {place}, SQLite", recovery_s=time.monotonic() - struck)
    for key in "ab":
        assert deployment.moves(run_id, key) == ["pending", "running", "completed"]


def test_of_two_claims_at_the_same_moment_one_wins(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, tmp_path: Path
) -> None:
    """F9: one writer at a time; the loser finds the claim of the other."""
    victim = victims(FaultRule(place="claim.commit", action="hold"), concurrency=2)
    with injected(tmp_path, FaultRule(place="dispatch.publish", action="duplicate")):
        run_id = deployment.enqueue(step("a", "echo", "a", queue=victim.queue))
    victim.struck("claim.commit")
    wait_until(lambda: victim.worker.output.count("received") >= 2, DEADLINE_S, "the worker has both messages")
    victim.plan.release()
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    wait_until(lambda: "is not run:" in victim.worker.output, DEADLINE_S, "the other claim is refused")
    fault_report(fault="F9", injected="two claims in the same moment, SQLite")
    assert deployment.moves(run_id) == ["pending", "running", "completed"]

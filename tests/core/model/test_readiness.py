"""What is done with a report, for every state of the step and every relation of the attempt to it."""

from __future__ import annotations

import pytest

from interlock.core.model.readiness import ReportDisposition, classify_report
from interlock.core.model.states import StepState

STOPPED = ("interrupted", "worker_lost", "shutdown", "revoked")
COUNTED = ("error", "timeout", "celery_retry", "unusable")


@pytest.mark.parametrize("failure", [None, *COUNTED, *STOPPED])
@pytest.mark.parametrize("state", list(StepState))
def test_the_holder_is_heard_while_its_step_runs_and_nobody_else_is_at_all(state: StepState, failure: str) -> None:
    running = state is StepState.RUNNING
    assert classify_report(state, holds=True, drains=False, failure=failure) is (
        ReportDisposition.RECORD if running else ReportDisposition.STALE
    )
    assert classify_report(state, holds=False, drains=False, failure=failure) is ReportDisposition.STALE


@pytest.mark.parametrize(
    ("state", "news", "stop"),
    [
        (StepState.RUNNING, ReportDisposition.RECORD, ReportDisposition.DISPATCH_SUCCESSOR),
        (StepState.PAUSED, ReportDisposition.DEFER, ReportDisposition.RELEASE),
        (StepState.CANCELLED, ReportDisposition.RELEASE, ReportDisposition.RELEASE),
    ],
)
def test_an_attempt_that_was_told_to_stop_is_heard_until_it_is_replaced(
    state: StepState, news: ReportDisposition, stop: ReportDisposition
) -> None:
    assert {classify_report(state, holds=False, drains=True, failure=failure) for failure in (None, *COUNTED)} == {news}
    assert {classify_report(state, holds=False, drains=True, failure=failure) for failure in STOPPED} == {stop}

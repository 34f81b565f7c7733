"""Workflows in Python, and tasks that are steps."""

from pathlib import Path
from typing import Any, assert_type

from celery import Celery

from interlock import CurrentStep, Decision, RetryPolicy, Step, StepInterrupted, Workflow, current_step, install

app = install(Celery("shop"))
assert_type(app, Celery)


def charge(order: dict[str, Any]) -> int:
    """Use what a running step offers."""
    step = current_step()
    assert_type(step, CurrentStep | None)
    if step is None:
        return 0
    assert_type(step.should_stop(), bool)
    assert_type(step.idempotency_key, str)
    assert_type(step.request_approval("Ship it?"), Decision)
    step.checkpoint({"seen": step.last_checkpoint})
    step.progress(1, total=2, message="half")
    try:
        return sum(order["prices"])
    except StepInterrupted as interrupted:
        step.checkpoint({"why": str(interrupted)})
        raise


order = {"$expr": "input"}
charged = Step("charge", "shop.charge", args=[order], retry=RetryPolicy(max_attempts=3), timeout_s=10)
packed = Step("pack", "shop.pack", args=[charged.result["parcels"][0]], after=charged, queue="heavy")
asked = Step("ask", None, approval=True, after=[packed, "charge"])
workflow = Workflow("order", "Charge and pack", [charged, packed, asked], deadline_s=60, run_through=True)

assert_type(Workflow.from_yaml(Path("order.yaml")), Workflow)
assert_type(Workflow.from_dict(workflow.to_dict()), Workflow)
assert_type(workflow.to_mermaid({"charge": "running"}), str)

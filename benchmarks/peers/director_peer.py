"""celery-director's producer: its workflows are in YAML, its workers are Celery's, its states in its tables."""

from __future__ import annotations

from director._auto import app
from director.builder import WorkflowBuilder
from director.models import StatusType
from director.models.workflows import Workflow
from driving import serve, wait_for

PROJECT = "benchmark"


def run(name: str, times: int) -> None:
    """Start a workflow so many times and wait for all of them.

    Raises:
        RuntimeError: One failed.
    """
    ids = []
    for _ in range(times):
        workflow = Workflow(project=PROJECT, name=name, payload={})
        workflow.save()
        ids.append(str(workflow.id))
        WorkflowBuilder(workflow.id).run()
    session = Workflow.query.session

    def ended() -> int:
        session.rollback()  # or it would look at the same snapshot for ever
        states = [status for (status,) in session.query(Workflow.status).filter(Workflow.id.in_(ids))]
        if StatusType.error in states:
            message = f"{name}: {states}"
            raise RuntimeError(message)
        return states.count(StatusType.success)

    wait_for(ended, times)


if __name__ == "__main__":
    with app.app_context():
        serve(
            {
                "chains": lambda count, length: run(f"CHAIN_{length}", count),
                "fan_out": lambda width: run(f"FAN_OUT_{width}", 1),
            },
        )

"""The same request id again gives the first outcome and acts once; and plans that a Celery task makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from interlock import Client, Step, Workflow
from interlock.core.errors import CommandRefused, InvalidPlan, TransitionNotAllowed
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.long

APP = "tests.worker.author_tasks"


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


@pytest.fixture(params=["database", "queue"])
def client(deployment: Deployment, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client with a database, or with the control queue alone."""
    if request.param == "database":
        yield deployment.client
    else:
        with deployment.remote_client(actor="tester") as remote:
            yield remote


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def said(key: str = "a", **options: Any) -> Step:
    """A step that is done at once."""
    return Step(key, task_name("echo"), ("said",), **options)


# --- each verb, twice with one id


def _enqueue(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    del deployment, shut
    workflow = Workflow("twice", "Be enqueued once.", [said()])
    return None, lambda request_id: client.enqueue(workflow, request_id=request_id)


def _create(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    del deployment, shut
    return None, lambda request_id: client.create("Be created once.", request_id=request_id)


def _start(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    del deployment
    run_id = client.create("Start once.")
    client.set_plan(run_id, Workflow("planned", "Start once.", [held("a", shut)]))
    return run_id, lambda request_id: client.start(run_id, request_id=request_id)


def _running(deployment: Deployment, shut: str) -> str:
    run_id = deployment.enqueue(held("a", shut))
    deployment.begun(run_id)
    return run_id


def _pause(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    run_id = _running(deployment, shut)
    return run_id, lambda request_id: client.pause(run_id, mode="drain", request_id=request_id)


def _resume(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    run_id = _running(deployment, shut)
    client.pause(run_id, mode="drain")
    return run_id, lambda request_id: client.resume(run_id, request_id=request_id)


def _cancel(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    run_id = _running(deployment, shut)
    return run_id, lambda request_id: client.cancel(run_id, request_id=request_id)


def _waiting(deployment: Deployment) -> str:
    run_id = deployment.enqueue(Step("a", approval={"on_reject": "continue"}))
    deployment.wait_for_status(run_id, "waiting_approval")
    return run_id


def _approve(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    del shut
    run_id = _waiting(deployment)
    return run_id, lambda request_id: client.approve(run_id, "a", "yes", request_id=request_id)


def _reject(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    del shut
    run_id = _waiting(deployment)
    return run_id, lambda request_id: client.reject(run_id, "a", "no", request_id=request_id)


def _failed(deployment: Deployment, shut: str) -> str:
    run_id = deployment.enqueue(Step("a", task_name("fail"), ("no",), on_failure="continue"), held("busy", shut))
    deployment.begun(run_id, ["busy"])
    deployment.wait_for_status(run_id, "failed", "a")
    return run_id


def _retry(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    run_id = _failed(deployment, shut)

    def retry(request_id: str) -> None:
        client.retry(run_id, "a", request_id=request_id)
        wait_until(lambda: deployment.moves(run_id)[-1] == "failed", DEADLINE_S, "it has failed again")

    return run_id, retry


def _settle(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    run_id = _failed(deployment, shut)
    return run_id, lambda request_id: client.settle(run_id, "a", 1, "by hand", request_id=request_id)


def _rerun(deployment: Deployment, client: Client, shut: str) -> tuple[str | None, Callable[[str], Any]]:
    del shut
    run_id, _ = deployment.run(Step("a", task_name("fail"), ("no",)))
    return run_id, lambda request_id: client.rerun(run_id, request_id=request_id)


VERBS = (_enqueue, _create, _start, _pause, _resume, _cancel, _approve, _reject, _retry, _settle, _rerun)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__[1:])
def test_a_verb_repeated_with_its_request_id_acts_once(
    deployment: Deployment,
    client: Client,
    shut: str,
    verb: Callable[..., tuple[str | None, Callable[[str], Any]]],
) -> None:
    """Another id, or none, would be refused or act again; the same one gives the first answer."""
    run_id, call = verb(deployment, client, shut)
    request_id = uuid4().hex
    first = call(request_id)
    runs = len(deployment.client.list(limit=1000))
    moves = [] if run_id is None else _asked(deployment, run_id)
    assert call(request_id) == first
    assert len(deployment.client.list(limit=1000)) == runs
    assert run_id is None or _asked(deployment, run_id) == moves


def _asked(deployment: Deployment, run_id: str) -> list[tuple[str, str | None]]:
    """What operators have moved."""
    rows = deployment.history(run_id)
    return [(row.to_state, row.step_key) for row in rows if row.transitioned_by == "tester"]


def test_a_refusal_is_an_outcome_too(deployment: Deployment, client: Client, shut: str) -> None:
    """Repeated when it would be allowed, the same request is still the one that was refused."""
    run_id = _running(deployment, shut)
    request_id = uuid4().hex
    with pytest.raises(TransitionNotAllowed):
        client.resume(run_id, request_id=request_id)
    client.pause(run_id, mode="drain")
    with pytest.raises(TransitionNotAllowed):
        client.resume(run_id, request_id=request_id)
    client.resume(run_id)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"


def test_a_request_id_means_the_same_by_database_and_by_queue(deployment: Deployment, shut: str) -> None:
    run_id = _running(deployment, shut)
    request_id = uuid4().hex
    with deployment.remote_client(actor="tester") as remote:
        remote.pause(run_id, mode="drain", request_id=request_id)
        deployment.client.resume(run_id)
        deployment.client.pause(run_id, mode="drain", request_id=request_id)
    assert deployment.client.status(run_id)["status"] == "executing", "the same request paused twice"


def test_of_another_session_the_same_request_id_is_another_request(deployment: Deployment, client: Client) -> None:
    workflow = Workflow("twice", "One per session.", [said()])
    request_id = uuid4().hex
    first = client.enqueue(workflow, request_id=request_id)
    with Client(deployment.app, session_id="other") as other:
        second = other.enqueue(workflow, request_id=request_id)
        assert second != first
        assert other.wait(second, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.wait(first, timeout_s=DEADLINE_S) == "completed"


# --- plans made by a Celery task


def test_a_celery_task_makes_the_plan_and_starts_it(deployment: Deployment, client: Client) -> None:
    run_id = client.create("Do what is necessary.", "necessary", meta={"ticket": 7})
    assert client.status(run_id)["status"] == "planning"
    deployment.app.send_task(f"{APP}.plans", (run_id, 3))
    assert client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert client.result(run_id) == {"s0": 0, "s1": 2, "s2": 4}
    moves = [(row.to_state, row.transitioned_by) for row in deployment.history(run_id) if row.step_key is None]
    engine_s = moves.pop()
    assert moves == [("draft", "tester"), ("planning", "tester"), ("executing", "planner")]
    assert engine_s[0] == "completed"


def test_a_plan_can_be_set_again_until_it_starts(client: Client) -> None:
    run_id = client.create("Think twice.")
    client.set_plan(run_id, Workflow("first", "Think.", [said("first")]))
    client.set_plan(run_id, Workflow("second", "Think again.", [said("second")]))
    client.start(run_id)
    assert client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert client.result(run_id) == {"second": "said"}
    with pytest.raises(CommandRefused, match="while draft or planning"):
        client.set_plan(run_id, Workflow("third", "Too late.", [said()]))


def test_a_bad_plan_is_refused_and_the_earlier_one_stands(client: Client) -> None:
    run_id = client.create("Keep what is good.")
    client.set_plan(run_id, Workflow("good", "Is good.", [said()]))
    with pytest.raises(InvalidPlan, match="nothing"):
        client.set_plan(run_id, {"steps": [{"key": "a", "task": "x", "after": ["nothing"]}]})
    client.start(run_id)
    assert client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert client.result(run_id) == {"a": "said"}


def test_a_run_without_a_plan_does_not_start(deployment: Deployment, client: Client) -> None:
    run_id = client.create("Has no plan.")
    with pytest.raises(Exception, match="has_valid_plan"):
        client.start(run_id)
    assert client.status(run_id)["status"] == "planning"
    client.cancel(run_id)
    assert deployment.client.status(run_id)["status"] == "cancelled"

"""Transactions that the database gives up (F14), and a failover to a server that is read-only for a while (F15)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import select, text

from interlock import Workflow
from interlock.core.database.tables import WorkflowRun
from interlock.core.errors import DatabaseBusy
from interlock.core.machine.guard_rules import NO_RULES, GuardRule, GuardRules, attach_rules
from interlock.core.machine.guards import GuardContext, guard
from tests.faults.steps import blocked, held, step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.celery_worker import CeleryWorker
    from tests.faults.conftest import FaultReport, Victims
    from tests.servers import PostgresDatabases
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults

_runs = WorkflowRun.__table__

asked: list[GuardContext] = []


@guard("tests.faults.asked")
def _asked(context: GuardContext) -> bool:
    asked.append(context)
    return True


@pytest.fixture(scope="module")
def worker(deployment: Deployment) -> CeleryWorker:
    """A worker that nothing is injected into."""
    return deployment.worker("given-up", concurrency=2, INTERLOCK_LEASE_S="15")


@pytest.fixture
def admin(postgres_databases: PostgresDatabases) -> Callable[[str], None]:
    """Runs a statement from outside the database."""

    def execute(statement: str) -> None:
        with psycopg.connect(postgres_databases.admin_url, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type] # not a literal

    return execute


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
def test_a_transaction_that_is_given_up_is_tried_again_and_fails_no_step(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, state: str
) -> None:
    """F14: the server itself gives up every seventh statement that moves something, for each of the three reasons."""
    victim = victims(concurrency=2)
    with _giving_up(deployment, state, "% 7 = 0") as appended:
        run_id = deployment.enqueue(*(step(f"s{n}", "echo", n, queue=victim.queue) for n in range(20)))
        assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        given_up = appended() // 7
    fault_report(fault="F14", injected=f"SQLSTATE {state} from every seventh statement", runs=given_up)
    assert given_up >= 5
    for row in deployment.steps(run_id).values():
        assert (row.attempt, row.failures, row.losses) == (1, 0, 0)


def test_a_verb_is_tried_a_bounded_number_of_times_and_then_says_that_nothing_was_written(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport, shut: str
) -> None:
    """F14: a typed error that says that the same call may succeed later; and it does."""
    run_id = deployment.enqueue(held("a", shut, "done"))
    deployment.begun(run_id)
    seq = deployment.client.status(run_id)["seq"]
    with _giving_up(deployment, "40001", "> 0") as appended, deployment.database.session() as session:
        with pytest.raises(DatabaseBusy) as busy:
            deployment.controller(session).pause_workflow(run_id, mode="drain")
        tries = appended()
    assert busy.value.retryable
    assert 1 < tries < 20
    assert deployment.client.status(run_id)["seq"] == seq
    with deployment.database.session() as session:
        deployment.controller(session).pause_workflow(run_id, mode="drain")
        deployment.controller(session).resume_workflow(run_id)
    fault_report(fault="F14", injected="SQLSTATE 40001 from every statement", runs=tries)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert worker.running


@pytest.mark.parametrize("door", ["client", "control queue"])
def test_a_clients_verb_that_the_database_gives_up_is_carried_out_by_a_later_try(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport, shut: str, door: str
) -> None:
    """F14: the two statements that are given up are an enqueue's; then those of a pause."""
    with deployment.remote_client(command_timeout_s=DEADLINE_S) as remote:
        client = deployment.client if door == "client" else remote
        with _giving_up(deployment, "40P01", "<= 2") as appended:
            run_id = client.enqueue(Workflow("given up", "Go on.", [held("a", shut, "done")]))
            assert appended() > 2
        deployment.begun(run_id)
        with _giving_up(deployment, "40P01", "<= 2") as appended:
            client.pause(run_id, mode="drain")
            assert appended() > 2
        client.resume(run_id)
    fault_report(fault="F14", injected=f"SQLSTATE 40P01 twice, from a verb by the {door}", runs=4)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert worker.running


def test_the_guards_are_asked_again_at_each_try(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport, shut: str
) -> None:
    """F14: what they saw the first time may not be so any more."""
    run_id = deployment.enqueue(held("a", shut, "done"))
    deployment.begun(run_id)
    asked.clear()
    rule = GuardRule("workflow_run", "executing", "paused", ("tests.faults.asked",), place="here")
    attach_rules(deployment.database.engine, GuardRules([rule]))
    try:
        with _giving_up(deployment, "40001", "<= 2"), deployment.database.session() as session:
            deployment.controller(session).pause_workflow(run_id, mode="drain")
    finally:
        attach_rules(deployment.database.engine, NO_RULES)
    fault_report(fault="F14", injected="SQLSTATE 40001 twice, behind a guard", runs=2)
    assert len(asked) == 3
    deployment.client.resume(run_id)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert worker.running


def test_a_real_deadlock_costs_a_completion_one_more_try(
    deployment: Deployment, victims: Victims, admin: Callable[[str], None], fault_report: FaultReport, shut: str
) -> None:
    """F14: somebody locks the step before its run, against the order of locks, and meets a completion."""
    name = deployment.database.engine.url.database
    admin(f"ALTER DATABASE {name} SET deadlock_timeout = '8s'")  # the completion looks once, after that time
    victim = victims()
    admin(f"ALTER DATABASE {name} RESET deadlock_timeout")
    run_id = deployment.enqueue(held("a", shut, "done", queue=victim.queue))
    step_id = deployment.begun(run_id)["a"]
    url = deployment.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as intruder:
        intruder.execute("SET deadlock_timeout = '30s'")  # so that the completion is the one that is given up
        intruder.execute("UPDATE workflow_steps SET progress = progress WHERE id = %s", (step_id,))
        deployment.ledger.open_gate(shut)
        wait_until(lambda: blocked(deployment), DEADLINE_S, "the completion waits for the step")
        intruder.execute("UPDATE workflow_runs SET seq = seq WHERE id = %s", (run_id,))
        intruder.commit()
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F14", injected="a deadlock with a completion")
    assert deployment.moves(run_id) == ["pending", "running", "completed"]
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    wait_until(lambda: _scalar(deployment, deadlocks), DEADLINE_S, "the server has counted a deadlock")


def test_a_claim_that_times_out_on_a_lock_again_and_again_is_granted_when_it_is_free(
    deployment: Deployment, victims: Victims, admin: Callable[[str], None], fault_report: FaultReport, shut: str
) -> None:
    """F14: the server's lock_timeout is 0.2 s, and the run is locked by somebody for longer than that, several times."""
    name = deployment.database.engine.url.database
    admin(f"ALTER DATABASE {name} SET lock_timeout = '200ms'")
    try:
        victim = victims()
        run_id = deployment.enqueue(held("first", shut, queue=victim.queue), step("a", "echo", "a", queue=victim.queue))
        deployment.begun(run_id, ["first"])
        with deployment.database.engine.connect() as intruder, intruder.begin():
            intruder.execute(select(_runs.c.id).where(_runs.c.id == run_id).with_for_update())
            deployment.ledger.open_gate(shut)
            for _ in range(3):
                wait_until(lambda: blocked(deployment), DEADLINE_S, "somebody waits for the lock")
                wait_until(lambda: not blocked(deployment), DEADLINE_S, "it has waited too long")
        freed = time.monotonic()
        assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        fault_report(fault="F14", injected="lock timeouts", runs=3, recovery_s=time.monotonic() - freed)
        assert all(row.attempt == 1 for row in deployment.steps(run_id).values())
    finally:
        admin(f"ALTER DATABASE {name} RESET lock_timeout")


# --- a failover


def test_after_a_failover_to_a_server_that_is_read_only_for_a_while_reports_are_recorded(
    deployment: Deployment,
    victims: Victims,
    admin: Callable[[str], None],
    fault_report: FaultReport,
    shut: str,
) -> None:
    """F15: connections break, new ones find a server that takes no writes yet; what connected to it meanwhile comes back."""
    victim = victims(INTERLOCK_LEASE_S="60")
    run_id = deployment.enqueue(
        held("a", shut, "done", queue=victim.queue), step("b", "echo", "b", queue=victim.queue, after=["a"])
    )
    deployment.begun(run_id)
    name = deployment.database.engine.url.database
    admin(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    try:
        deployment.ledger.open_gate(shut)
        wait_until(lambda: "read-only transaction" in victim.worker.output, DEADLINE_S, "a write is refused")
    finally:
        admin(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    mended = time.monotonic()
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F15", injected="a failover that is read-only at first", recovery_s=time.monotonic() - mended)
    assert all(row.attempt == 1 for row in deployment.steps(run_id).values())


# --- the database, made to fail


def _scalar(deployment: Deployment, query: str) -> Any:
    with deployment.database.reading() as connection:
        return connection.scalar(text(query))


@contextmanager
def _giving_up(deployment: Deployment, state: str, condition: str) -> Iterator[Callable[[], int]]:
    """Have the server give up the statements that append to the history and whose number meets a condition.

    Yields:
        Tells how many there were.
    """
    statements = (
        "CREATE SEQUENCE appended",  # not rolled back with the transaction that it makes fail
        f"""CREATE FUNCTION give_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('appended') {condition} THEN RAISE EXCEPTION 'given up' USING ERRCODE = '{state}'; END IF;
        RETURN NULL; END $$""",
        "CREATE TRIGGER give_up BEFORE INSERT ON state_history FOR EACH STATEMENT EXECUTE FUNCTION give_up()",
    )
    with deployment.database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    try:
        yield lambda: int(_scalar(deployment, "SELECT last_value FROM appended"))
    finally:
        with deployment.database.engine.begin() as connection:
            for statement in ("TRIGGER give_up ON state_history", "FUNCTION give_up", "SEQUENCE appended"):
                connection.exec_driver_sql(f"DROP {statement}")

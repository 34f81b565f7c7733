"""docs/security/postgresql-*.sql on a real server: each role can do its work, and nothing that is another's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from interlock import Client, Step, Workflow
from interlock.core import open_database
from interlock.core.settings import Settings
from interlock.core.sweeper.redispatch_rate import RedispatchRate
from interlock.core.verify import Verification, verify
from interlock.migrations import check, upgrade
from tests.core.worker_double import WorkerDouble
from tests.security.roles import grant, make_roles, plain_url_of, url_of
from tests.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

WORKER, PRODUCER, AUDITOR, OWNER = (f"interlock_{name}" for name in ("worker", "producer", "auditor", "owner"))
PLAN = [
    Step("first", "t.first"),
    Step("gate", approval=True),
    Step("each", "t.each", map="input.items"),
    Step("skipped", "t.skipped", when="input.never"),
    Step("last", "t.last", after=["first", "each"]),
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server with the example's roles, and a run that a producer has enqueued."""
    with PostgresServer() as server:
        make_roles(server)
        with _client(server, PRODUCER) as producer:
            producer.enqueue(Workflow("example", "Show that it works.", PLAN), {"items": [1, 2]})
        yield server


def _client(server: PostgresServer, role: str) -> Client:
    return Client(database_url=url_of(server, role), settings=Settings())


def _refused(server: PostgresServer, role: str, statement: str) -> None:
    """The server itself refuses it; on a connection of its own, so that nothing is left behind."""
    with psycopg.connect(plain_url_of(server, role)) as connection:
        with pytest.raises((errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)):
            connection.execute(statement.encode())
        connection.rollback()


# --- what each needs


def test_a_producer_enqueues_plans_looks_and_repeats_itself(server: PostgresServer) -> None:
    workflow = Workflow("shop", "Deliver.", PLAN)
    with _client(server, PRODUCER) as producer:
        run_id = producer.enqueue(workflow, {"items": [1, 2]}, idempotency_key="order-1", request_id="r1")
        assert producer.enqueue(workflow, {"items": [1, 2]}, idempotency_key="order-1") == run_id
        assert producer.status(run_id)["status"] == "executing"
        assert [change.to_state for change in producer.history(run_id)][:2] == ["draft", "planning"]
        assert run_id in [run["run_id"] for run in producer.list(name="shop")]
        assert producer.explain(run_id)["status"] == "executing"
        later = producer.enqueue(workflow, {"items": [1]}, start_at=datetime.now(UTC) + timedelta(hours=1))
        assert producer.status(later)["status"] == "draft"
        planned = producer.create("Still to be planned.", input={"items": [1]})
        producer.set_plan(planned, workflow)
        producer.start(planned)


def test_a_worker_moves_a_run_from_its_first_step_to_its_last(server: PostgresServer) -> None:
    database = open_database(url_of(server, WORKER))
    double = WorkerDouble(database, Settings())
    with _client(server, WORKER) as operator:
        operator._open_runtime().database.after_commit.append(double._deliver)
        run_id = operator.enqueue(Workflow("shop", "Deliver.", PLAN), {"items": [1, 2]})
        operator.pause(run_id, reason="tea")
        double.queue.clear()
        operator.resume(run_id)
        operator.approve(run_id, "gate", "fine")
        double.run_all()
        assert operator.status(run_id)["status"] == "completed"
        planned = operator.create("Planned twice.", input={"items": [1]})
        for _ in range(2):
            operator.set_plan(planned, Workflow("shop", "Deliver.", PLAN))
        operator.cancel(planned)
        again = operator.rerun(planned)
        operator.cancel(again)
    rate = RedispatchRate(Settings())
    database.transact(lambda connection, _: rate.pay(connection, rate.draw(connection)))
    database.dispose()


def test_an_auditor_reads_and_verifies(server: PostgresServer) -> None:
    with _client(server, AUDITOR) as auditor:
        runs = auditor.list(limit=1000)
        assert runs
        assert auditor.history(runs[-1]["run_id"])
        with pytest.raises(DBAPIError):
            auditor.cancel(runs[-1]["run_id"])
    database = open_database(url_of(server, AUDITOR))
    assert list(verify(database, Verification())) == []
    database.dispose()
    check(url_of(server, AUDITOR))


def test_the_owner_upgrades_and_grants_again(server: PostgresServer) -> None:
    upgrade(url_of(server, OWNER))
    grant(server)


# --- what each may not

NOBODY: list[str] = [
    "UPDATE state_history SET transitioned_by = 'eve'",
    "DELETE FROM state_history",
    "TRUNCATE state_history",
    "DELETE FROM workflow_runs",
    "TRUNCATE workflow_runs CASCADE",
    "DELETE FROM step_dependencies",
    "DELETE FROM approval_requests",
    "ALTER TABLE state_history DISABLE TRIGGER ALL",
    "DROP TRIGGER state_history_no_update ON state_history",
    "DROP TABLE state_history",
    "ALTER TABLE workflow_runs ADD COLUMN x int",
    "CREATE TABLE mine (x int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "SET session_replication_role = replica",
    "SET ROLE interlock_owner",
    "UPDATE interlock_version SET version_num = '0000'",
    "COPY workflow_runs TO PROGRAM 'cat'",
    "COPY workflow_runs FROM '/etc/passwd'",
]
OF_THE_PRODUCER: list[str] = [
    "UPDATE workflow_steps SET result = '1'",
    "UPDATE workflow_steps SET task = 't.other'",
    "UPDATE workflow_steps SET spec = '{}'",
    "UPDATE workflow_steps SET checkpoint = '1'",
    "UPDATE workflow_steps SET late = '1'",
    "UPDATE workflow_steps SET session_id = 'mine'",
    "UPDATE workflow_runs SET input = '1'",
    "UPDATE workflow_runs SET session_id = 'mine'",
    "UPDATE approval_requests SET decision = 'approved'",
    "DELETE FROM workflow_steps",
    "DELETE FROM control_commands",
    "UPDATE control_commands SET session_id = 'mine'",
    "INSERT INTO redispatch_budget (id) VALUES (2)",
    "UPDATE redispatch_budget SET paid_until = now()",
]
OF_THE_AUDITOR: list[str] = [
    "INSERT INTO workflow_runs (id, session_id, status) VALUES (gen_random_uuid(), 's', 'draft')",
    "INSERT INTO control_commands (session_id, id, command, outcome) VALUES ('s', 'i', 'list', '{}')",
    "UPDATE workflow_runs SET status = 'completed'",
    "UPDATE workflow_steps SET status = 'completed'",
    "SELECT nextval('state_history_id_seq')",
    "SELECT * FROM workflow_runs FOR UPDATE",
]


@pytest.mark.parametrize("statement", NOBODY)
@pytest.mark.parametrize("role", [WORKER, PRODUCER, AUDITOR])
def test_the_server_refuses_everybody_but_the_owner(server: PostgresServer, role: str, statement: str) -> None:
    _refused(server, role, statement)


@pytest.mark.parametrize("statement", OF_THE_PRODUCER)
def test_the_server_refuses_a_producer(server: PostgresServer, statement: str) -> None:
    _refused(server, PRODUCER, statement)
    _refused(server, AUDITOR, statement)


@pytest.mark.parametrize("statement", OF_THE_AUDITOR)
@pytest.mark.parametrize("asked", ["", "SET default_transaction_read_only = off; SET transaction_read_only = off; "])
def test_the_server_refuses_an_auditor_whatever_the_session_says(
    server: PostgresServer, statement: str, asked: str
) -> None:
    _refused(server, AUDITOR, asked + statement)


def test_a_producer_cannot_decide_or_settle_by_the_client_either(server: PostgresServer) -> None:
    with _client(server, PRODUCER) as producer:
        run_id = producer.list(name="example")[0]["run_id"]
        seq = producer.status(run_id)["seq"]
        calls: list[Any] = [lambda: producer.approve(run_id, "gate"), lambda: producer.cancel(run_id)]
        for call in calls:
            with pytest.raises(DBAPIError) as refused:
                call()
            assert getattr(refused.value.orig, "sqlstate", None) == "42501"
        assert producer.status(run_id)["seq"] == seq


def test_a_run_that_would_end_as_it_begins_is_not_a_producers_to_enqueue(server: PostgresServer) -> None:
    """As the file says: it would have to write a result."""
    each = Workflow("ends at once", "Map over nothing.", [Step("each", "t.each", map="input")])
    with _client(server, PRODUCER) as producer:
        with pytest.raises(DBAPIError) as refused:
            producer.enqueue(each, [])
        assert getattr(refused.value.orig, "sqlstate", None) == "42501"
        assert producer.list(name="ends at once") == []
    with _client(server, WORKER) as worker:
        assert worker.status(worker.enqueue(each, []))["status"] == "completed"


def test_even_the_owner_does_not_change_history(server: PostgresServer) -> None:
    with psycopg.connect(plain_url_of(server, OWNER)) as connection:
        with pytest.raises(psycopg.DatabaseError, match="append-only"):
            connection.execute("UPDATE state_history SET transitioned_by = 'eve'")
        connection.rollback()

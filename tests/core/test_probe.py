from sqlalchemy.orm import Session
from interlock.core import *
from interlock.core.models import *
from .rows import *
from .checker import *
import pytest

def test_smoke(controller, worker, database, rows, sweeper):
    run = controller.enqueue_workflow([step("a"), step("b", "a"), step("c", "a b")], task_description="x")
    worker.claim("a")
    print(rows.step(run, "a"))
    print(sweeper.sweep())
    worker.complete("a", 1)
    worker.run_all()
    print(rows.run(run))
    assert rows.run(run).status == "completed"

def test_pause_policy(controller, worker, database, rows, sweeper):
    run = controller.enqueue_workflow([step("a", on_failure="pause"), step("b", "a")], task_description="x")
    worker.run_failing("a")
    check(database)
    controller.resume_workflow(run)
    print(rows.states(run), rows.run(run).status, sweeper.sweep(), rows.states(run))

def test_double_count(controller, worker, database, rows, sweeper):
    run = controller.enqueue_workflow([step("a", on_failure="continue"), step("x", "a", trigger="all_settled", when="abs(results.a)>`0`", on_failure="continue"), step("o"),
      step("h","a x"), step("d","h o", trigger="all_settled")], task_description="x")
    worker.run_failing("a")
    print(rows.states(run), worker.queued)
    check(database)

def test_close(unchecked_database, rows):
    db = unchecked_database
    e = EventEmitter(); seen=[]; e.on("state_changed", seen.append)
    s = Session(db.engine)
    c = WorkflowController(s, event_emitter=e)
    r = c.create_workflow("x"); rid = r.id
    assert s.in_transaction()
    m = StateMachine(s, "workflow_run", e)
    seen.clear()
    m.transition_to(rid, "planning")
    s.close()
    assert not seen
    m.transition_to(rid, "cancelled")
    print(seen)
    assert len(seen)==1

def test_outer(unchecked_database, rows):
    db = unchecked_database
    e = EventEmitter(); seen=[]; e.on("state_changed", seen.append)
    with db.session() as s: rid = WorkflowController(s).create_workflow("x").id
    with db.engine.connect() as conn:
        outer = conn.begin()
        s = Session(conn)
        m = StateMachine(s, "workflow_run", e)
        m.transition_to(rid, "planning")
        assert not seen
        s.commit()
        assert not seen
        outer.rollback()
        m.transition_to(rid, "cancelled"); s.commit()
        assert len(seen)<=1, seen

def test_refresh(unchecked_database):
    with unchecked_database.session() as s:
        c = WorkflowController(s)
        run = c.create_workflow("x", plan=[step("a")])
        s.query(WorkflowStep).all()
        s.commit()
        c.set_plan(run.id, [step("b")])
        c.start_workflow(run.id)

def test_merge(unchecked_database):
    with unchecked_database.session() as s:
        run = WorkflowController(s).create_workflow("x")
    with unchecked_database.session() as s:
        s.merge(run)
    with pytest.raises(AttributeError): run.status = "completed"

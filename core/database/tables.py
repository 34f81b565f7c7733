"""The tables, as SQLAlchemy models: for reading, for tests, and as the source of the migrations.

Nothing here writes. `status` is moved by `unit_of_work` alone; assigning it on a loaded object raises. `due_at` is computed
by the database from the timers beside it, so that no statement can forget it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    Boolean,
    Computed,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    column,
    event,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.attributes import instance_state

from interlock.core.model.states import StepState, WorkflowState

from .types import Identifier, Json, UtcDateTime, clock, earliest

__all__ = [
    "TRIGGER_HOLDS_EARLY",
    "ApprovalRequest",
    "Base",
    "ControlCommand",
    "RedispatchBudget",
    "StateHistory",
    "StepDependency",
    "WorkflowRun",
    "WorkflowStep",
    "table_of_model",
]

NAME = String(200)
# SQLite numbers rows by itself only where the key is exactly INTEGER.
BIG_KEY = BigInteger().with_variant(Integer, "sqlite")


READY = "attempt = 0 AND open_deps = 0"  # without a literal, which databases show with a cast


class Base(DeclarativeBase):
    """Declarative base; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        },
    )


def _partial_index(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


def new_id() -> str:
    """A fresh UUID, as a string."""
    return str(uuid4())


class WorkflowRun(Base):
    """One run of a workflow. Its row is the lock and the counter (`seq`) of everything that happens in it."""

    __tablename__ = "workflow_runs"

    id: Mapped[str] = mapped_column(Identifier, primary_key=True, default=new_id)
    session_id: Mapped[str] = mapped_column(NAME, default="default")
    name: Mapped[str | None] = mapped_column(String(200))
    task_description: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(20), default=WorkflowState.DRAFT.value)
    #: The plan without its steps, which are rows.
    spec: Mapped[dict[str, Any] | None] = mapped_column(Json)
    input: Mapped[Any | None] = mapped_column(Json)
    meta: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[str | None] = mapped_column(Text)
    #: Number of the newest history row of this run.
    seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    #: Steps that are not settled.
    open_steps: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    #: Steps that wait for a person.
    waiting_steps: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    #: How many steps may be in work at once; None for no limit.
    max_parallel: Mapped[int | None] = mapped_column(Integer)
    idempotency_key: Mapped[str | None] = mapped_column(NAME)
    forked_from: Mapped[str | None] = mapped_column(Identifier)
    pause_mode: Mapped[str | None] = mapped_column(String(20))
    paused_by: Mapped[str | None] = mapped_column(NAME)
    paused_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=clock(), server_default=clock())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    #: When a draft is to start; None for one that waits for a call.
    start_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    #: When the run is to fail for lateness; frozen while paused.
    deadline_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime,
        Computed(earliest(column("start_at"), column("deadline_at")), persisted=True),
    )

    __table_args__ = (
        Index("uq_workflow_runs_idempotency_key", "session_id", "idempotency_key", unique=True),
        Index("ix_workflow_runs_session_id", "session_id", "created_at"),
        Index("ix_workflow_runs_status", "status", "id"),
        _partial_index("ix_workflow_runs_due_at", "due_at", where="due_at IS NOT NULL"),
    )

    def __repr__(self) -> str:
        """Name the run and its state without touching the database."""
        return f"<WorkflowRun {self.__dict__.get('id')} {self.__dict__.get('status')}>"


class WorkflowStep(Base):
    """One step of a run, and the attempt it is at."""

    __tablename__ = "workflow_steps"

    id: Mapped[str] = mapped_column(Identifier, primary_key=True, default=new_id)
    run_id: Mapped[str] = mapped_column(ForeignKey("workflow_runs.id", ondelete="CASCADE"))
    session_id: Mapped[str] = mapped_column(NAME, default="default")
    key: Mapped[str] = mapped_column(NAME)
    position: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    #: The mapped step whose child this is.
    parent_id: Mapped[str | None] = mapped_column(Identifier)
    status: Mapped[str] = mapped_column(String(20), default=StepState.PENDING.value)
    task: Mapped[str | None] = mapped_column(String(500))
    #: The step's part of the plan (`StepSpec` as JSON).
    spec: Mapped[dict[str, Any] | None] = mapped_column(Json)
    meta: Mapped[dict[str, Any] | None] = mapped_column(Json)
    result: Mapped[Any | None] = mapped_column(Json)
    error: Mapped[str | None] = mapped_column(Text)
    checkpoint: Mapped[Any | None] = mapped_column(Json)
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)

    #: Dependencies that are not settled; settled other than completed; failed.
    open_deps: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    unmet_deps: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    failed_deps: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))

    #: Ordinal of the current attempt, 0 before the first; its Celery id; who holds it, with which token, until when.
    attempt: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    task_id: Mapped[str | None] = mapped_column(String(250))
    claim_token: Mapped[str | None] = mapped_column(String(64))
    claimed_by: Mapped[str | None] = mapped_column(String(255))
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    #: Counted failures; attempts whose worker was lost; Celery's own retries within the policy of the task.
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    losses: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    celery_retries: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    #: Arguments that a task gave to its own `self.retry(args=…, kwargs=…)`.
    override: Mapped[dict[str, Any] | None] = mapped_column(Json)

    #: An attempt that was told to stop and may still run: its id, its token, and when to stop waiting for it.
    drain_task_id: Mapped[str | None] = mapped_column(String(250))
    drain_token: Mapped[str | None] = mapped_column(String(64))
    drain_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    #: What arrived while paused, to be applied at resume: {"kind": "completed" | "failed" | …}.
    late: Mapped[dict[str, Any] | None] = mapped_column(Json)
    #: Who paused this step by itself, and how its body is to stop; None when the workflow's pause did.
    paused_by: Mapped[str | None] = mapped_column(NAME)
    pause_mode: Mapped[str | None] = mapped_column(String(20))

    #: Messages published for this attempt.
    dispatches: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    dispatch_check_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    retry_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    timeout_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime,
        Computed(
            earliest(
                column("dispatch_check_at"),
                column("retry_at"),
                column("lease_until"),
                column("timeout_at"),
            ),
            persisted=True,
        ),
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=clock(), server_default=clock())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    #: Celery id of the message on which a process came to the first attempt from an earlier step (run-through); kept until that
    #: step has completed, because workers know that process by the message alone. Later attempts have messages of their own.
    carrier_id: Mapped[str | None] = mapped_column(String(250))

    __table_args__ = (
        UniqueConstraint("run_id", "key"),
        Index("ix_workflow_steps_run_id_status", "run_id", "status"),
        # Ready, but over a limit on parallel work: what starts next.
        _partial_index("ix_workflow_steps_ready", "run_id", "position", where=READY),
        Index("ix_workflow_steps_parent_id", "parent_id"),
        _partial_index("ix_workflow_steps_drain_task_id", "drain_task_id", where="drain_task_id IS NOT NULL"),
        _partial_index("ix_workflow_steps_carrier_id", "carrier_id", where="carrier_id IS NOT NULL"),
        _partial_index("ix_workflow_steps_due_at", "due_at", where="due_at IS NOT NULL"),
        _partial_index("ix_workflow_steps_task_id", "task_id", where="task_id IS NOT NULL"),
    )

    def __repr__(self) -> str:
        """Name the step and its state without touching the database."""
        known = self.__dict__
        return f"<WorkflowStep {known.get('key')} {known.get('id')} {known.get('status')}>"


#: For statements over steps: the trigger holds though dependencies are open, as `model.readiness` decides it.
TRIGGER_HOLDS_EARLY = and_(
    WorkflowStep.open_deps > 0,
    WorkflowStep.failed_deps > 0,
    WorkflowStep.spec["trigger"].as_string() == "any_failed",
)


class StepDependency(Base):
    """An edge of the plan: `step_id` waits for `upstream_id`."""

    __tablename__ = "step_dependencies"

    upstream_id: Mapped[str] = mapped_column(
        ForeignKey("workflow_steps.id", ondelete="CASCADE"),
        primary_key=True,
    )
    step_id: Mapped[str] = mapped_column(ForeignKey("workflow_steps.id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("workflow_runs.id", ondelete="CASCADE"))

    __table_args__ = (Index(None, "step_id"), Index(None, "run_id"))


class StateHistory(Base):
    """One transition. Append-only: the database refuses UPDATE, and DELETE while the run exists."""

    __tablename__ = "state_history"

    id: Mapped[int] = mapped_column(BIG_KEY, primary_key=True, autoincrement=True)
    entity_type: Mapped[str] = mapped_column(String(20))
    entity_id: Mapped[str] = mapped_column(Identifier)
    session_id: Mapped[str] = mapped_column(NAME)
    workflow_id: Mapped[str] = mapped_column(Identifier)
    seq: Mapped[int] = mapped_column(BigInteger)
    from_state: Mapped[str | None] = mapped_column(String(20))
    to_state: Mapped[str] = mapped_column(String(20))
    transition_reason: Mapped[str | None] = mapped_column(Text)
    transitioned_by: Mapped[str] = mapped_column(NAME)
    #: Key and attempt of the step, so that an event needs no join.
    step_key: Mapped[str | None] = mapped_column(NAME)
    attempt: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=clock(), server_default=clock())
    meta: Mapped[dict[str, Any] | None] = mapped_column(Json)

    __table_args__ = (
        UniqueConstraint("workflow_id", "seq"),
        Index(None, "entity_type", "entity_id", "id"),
        Index(None, "session_id", "id"),
        Index(None, "created_at"),
        {"sqlite_autoincrement": True},  # the id of an archived row is the id of an event: never given again
    )

    def __repr__(self) -> str:
        """Show the edge."""
        return f"<StateHistory {self.workflow_id}#{self.seq} {self.from_state} → {self.to_state}>"


class ApprovalRequest(Base):
    """A question to a person. One decision, made once."""

    __tablename__ = "approval_requests"

    id: Mapped[str] = mapped_column(Identifier, primary_key=True, default=new_id)
    run_id: Mapped[str] = mapped_column(ForeignKey("workflow_runs.id", ondelete="CASCADE"))
    step_id: Mapped[str | None] = mapped_column(ForeignKey("workflow_steps.id", ondelete="CASCADE"))
    session_id: Mapped[str] = mapped_column(NAME)
    spec: Mapped[dict[str, Any] | None] = mapped_column(Json)
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime, default=clock(), server_default=clock())
    deadline_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    #: `approved`, `rejected`, or `closed` when the run ended first.
    decision: Mapped[str | None] = mapped_column(String(20))
    #: Whether the decision has taken effect; one made while the run was paused waits for its resume.
    applied: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))
    decided_by: Mapped[str | None] = mapped_column(NAME)
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    comment: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index(None, "run_id"),
        Index(None, "step_id"),
        _partial_index(
            "ix_approval_requests_deadline_at", "deadline_at", where="decision IS NULL AND deadline_at IS NOT NULL"
        ),
    )


class ControlCommand(Base):
    """A command that was carried out, and what came of it: the answer to its repetitions."""

    __tablename__ = "control_commands"

    session_id: Mapped[str] = mapped_column(NAME, primary_key=True)
    id: Mapped[str] = mapped_column(NAME, primary_key=True)
    command: Mapped[str] = mapped_column(String(40))
    workflow_id: Mapped[str | None] = mapped_column(Identifier)
    actor: Mapped[str | None] = mapped_column(NAME)
    outcome: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=clock(), server_default=clock())

    __table_args__ = (Index(None, "created_at"),)


class RedispatchBudget(Base):
    """The allowance of messages sent again, in one row; whoever draws on it holds that row until its commit."""

    __tablename__ = "redispatch_budget"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    #: Up to when everything that was sent again is paid for.
    paid_until: Mapped[datetime] = mapped_column(UtcDateTime, default=clock(), server_default=clock())


def table_of_model(model: type[Base]) -> Table:
    """The table of a model, for statements that need no objects."""
    table = model.__table__
    if not isinstance(table, Table):
        raise TypeError(model)
    return table


def _refuse_status(target: WorkflowRun | WorkflowStep, value: Any, old: Any, initiator: Any) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    # A detached object is loaded too: it could be changed and then added to another session. Merging sets what is there.
    if instance_state(target).has_identity and value != old:
        msg = (
            f"{type(target).__name__}.status is moved by StateMachine.transition_to() alone, "
            "which checks the table, keeps the history and tells the subscribers"
        )
        raise AttributeError(msg)


event.listen(WorkflowRun.status, "set", _refuse_status)
event.listen(WorkflowStep.status, "set", _refuse_status)

"""The table of verbs. Each is declared here once: its arguments, what carries it out, and where people find it.

To add a verb: an operation (a method of `WorkflowController`) or a query in core, an entry here, a method of the client, and a
command of the command line. Handler, admission and docs/verbs.md follow the table, and the table's test compares the four.
"""

from __future__ import annotations

import inspect
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from interlock.core.operations.controller import WorkflowController
from interlock.core.queries import answers
from interlock.core.queries.explain import explain
from interlock.core.sweeper.redispatch import Redispatcher
from interlock.signals.dispatch.broker_inspection import add_broker_facts
from interlock.signals.events.cloud_event import event_document

from .fields import Args, Limit, Name, Number, Text, Time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Celery

    from interlock.core.database.database import Database
    from interlock.core.events import StateChange
    from interlock.core.settings import Settings

__all__ = ["VERBS", "Change", "Hint", "Query", "Verb", "parameters_of"]


# --- arguments; those of several verbs are declared once


class EnqueueArgs(Args):
    """A plan, and how its run begins. Plan and input are checked by the controller, which lists every fault."""

    plan: Any
    input: Any = None
    name: Text | None = None
    task_description: Text | None = None
    idempotency_key: Name | None = None
    start_at: Time = None


class CreateArgs(Args):
    """A run whose plan is still to be made."""

    task_description: Text
    name: Text | None = None
    input: Any = None
    meta: dict[str, Any] | None = None


class PlanArgs(Args):
    """A plan for a run that has none."""

    plan: Any


class MaybeStepArgs(Args):
    """The run, or one step of it."""

    step: Name | None = None


class PauseArgs(MaybeStepArgs):
    """How running bodies are treated; which modes there are, core knows."""

    mode: Text = "interrupt"


class StepArgs(Args):
    """One step."""

    step: Name


class DecisionArgs(StepArgs):
    """A decision about a step."""

    comment: Text | None = Field(default=None, max_length=10_000)


class SettleArgs(StepArgs):
    """A result given by hand; any JSON."""

    result: Any = None


class ReplayArgs(Args):
    """A page of a run's history."""

    after_seq: Number = 0
    limit: Limit = 1000


class ListArgs(Args):
    """Which runs; None does not restrict."""

    status: Text | None = None
    name: Text | None = None
    created_after: Time = None
    created_before: Time = None
    limit: Limit = 50


# --- kinds of verbs


@dataclass(frozen=True, slots=True)
class Verb:
    """What every verb has.

    Attributes:
        name: What the control queue calls it.
        args: Its arguments.
        needs_run: Whether it concerns one run, by its id.
        method: Name of the client's method, where it is another.
        has_command: Whether the command line has it, under the method's name.
        makes_due: Whether steps may be due afterwards, so that a client that does not dispatch tells an engine.
    """

    name: str
    args: type[Args] = Args
    _: KW_ONLY
    needs_run: bool = True
    method: str = ""
    has_command: bool = True
    makes_due: bool = False

    @property
    def client_method(self) -> str:
        """Name of the client's method."""
        return self.method or self.name


@dataclass(frozen=True, slots=True)
class Change(Verb):
    """Makes or moves a run, in one transaction with its outcome, once per request id.

    Operations get the arguments by name, `run_id` where the verb needs one, and those of `reason` and `transitioned_by` that they
    take. They return None, or the id of the run that they made.

    Attributes:
        on_run: Operation on a run, or one that makes a run.
        on_step: Operation where a step is named.
    """

    _: KW_ONLY
    on_run: Callable[..., Any] | None = None
    on_step: Callable[..., Any] | None = None

    def operation(self, step: str | None) -> Callable[..., Any]:
        """What carries it out for a run, or for a step of it."""
        found = self.on_run if step is None else self.on_step
        if found is None:  # the arguments say whether a step may be named, and must be
            raise AssertionError
        return found


@dataclass(frozen=True, slots=True)
class Query(Verb):
    """Only reads; never stored, and repeated as often as it is asked.

    Attributes:
        read: Gets a connection, `session_id`, `run_id` where the verb needs one, and the arguments by name.
        as_json: Makes JSON of what `read` returns, where it is none yet.
        ask_broker: Adds what only the broker knows, after the transaction.
    """

    _: KW_ONLY
    read: Callable[..., Any]
    as_json: Callable[[Any], Any] | None = None
    ask_broker: Callable[[Celery, Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Hint(Verb):
    """Has the engine do sooner what it would do anyway: no outcome is stored, nothing is told, and clients send it by themselves.

    Attributes:
        act: Gets the database, the settings, `session_id` and `run_id`.
    """

    _: KW_ONLY
    act: Callable[..., Any]


def _send_due(database: Database, settings: Settings, *, session_id: str, run_id: str | None) -> None:
    """Send what is due of a session, or of one run, now and not at the next sweep, as far as the rate limit allows."""
    Redispatcher(database, settings).send_due(session_id=session_id, run_id=run_id)


def _events(changes: list[StateChange]) -> list[dict[str, Any]]:
    return [event_document(change) for change in changes]


_C = WorkflowController

_TABLE: Final[tuple[Change | Query | Hint, ...]] = (
    Change("enqueue", EnqueueArgs, on_run=_C.enqueue_workflow, needs_run=False, makes_due=True, has_command=False),
    Change("create", CreateArgs, on_run=_C.create_unplanned, needs_run=False, has_command=False),
    Change("set_plan", PlanArgs, on_run=_C.set_plan, has_command=False),
    Change("start", on_run=_C.start_workflow, makes_due=True, has_command=False),
    Change("pause", PauseArgs, on_run=_C.pause_workflow, on_step=_C.pause_step),
    Change("resume", MaybeStepArgs, on_run=_C.resume_workflow, on_step=_C.resume_step, makes_due=True),
    Change("cancel", on_run=_C.cancel_workflow),
    Change("approve", DecisionArgs, on_step=_C.approve_step, makes_due=True),
    Change("reject", DecisionArgs, on_step=_C.reject_step, makes_due=True),
    Change("retry", StepArgs, on_step=_C.retry_step, makes_due=True),
    Change("settle", SettleArgs, on_step=_C.settle_step, makes_due=True),
    Change("rerun", on_run=_C.rerun_workflow, makes_due=True),
    Query("status", read=answers.status),
    Query("result", MaybeStepArgs, read=answers.result),
    Query("list", ListArgs, read=answers.list_runs, needs_run=False),
    Query("explain", read=explain, ask_broker=add_broker_facts),
    Query("replay", ReplayArgs, read=answers.history, as_json=_events, method="history"),
    Hint("dispatch", act=_send_due, needs_run=False, has_command=False),
)

VERBS: Final[Mapping[str, Change | Query | Hint]] = {verb.name: verb for verb in _TABLE}
"""Name on the control queue → the verb."""


@cache
def parameters_of(operation: Callable[..., Any]) -> frozenset[str]:
    """The names by which an operation takes arguments."""
    return frozenset(inspect.signature(operation).parameters)

"""Attaches guards to edges, for all workflows or by workflow name and step key, and asks the guards of an edge.

A rule narrows the tables and never widens them. Only moves that a caller or a command asks for are asked about, and starts
(docs/guards.md): what has happened already is not, so no rule can keep a report out or leave a workflow stranded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, and_, or_

from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.errors import GuardRefused
from interlock.core.model.states import StepState
from interlock.core.model.transitions import STEP_TABLE, table_of

from . import built_in_guards  # noqa: F401 - registers what the tables name
from .guards import objection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from .guards import GuardContext

__all__ = ["NO_RULES", "GuardRule", "GuardRules", "attach_rules", "require_guards", "rules_of"]

_OPTION: Final = "interlock_guard_rules"  # of an engine, for all of its connections
_OWN_OPTION: Final = "interlock_own_guard_rules"  # of one connection, instead of its engine's
_START: Final = (STEP_TABLE.entity_type, StepState.RUNNING.value)

_steps = table_of_model(WorkflowStep)


@dataclass(frozen=True, slots=True)
class GuardRule:
    """One entry of the file.

    Attributes:
        entity_type: `workflow_run` or `workflow_step`.
        from_state: Where the edge begins.
        to_state: Where it ends.
        guards: Names of the guards that must hold, in the order in which they are asked.
        workflow: Only runs of this workflow; None for all.
        step: Only the step of this key, and its items where it is mapped; None for all.
        place: `file:line` of the entry.
    """

    entity_type: str
    from_state: str
    to_state: str
    guards: tuple[str, ...]
    workflow: str | None = None
    step: str | None = None
    place: str = ""

    def covers(self, entity: Mapping[Any, Any]) -> bool:
        """Whether the rule is for this step, or run, of its workflow."""
        if self.step is None or entity["key"] == self.step:
            return True
        parent, _, _ = str(entity["key"]).rpartition(".")
        return entity["parent_id"] is not None and parent == self.step


class GuardRules:
    """The rules of one database, by edge; false where there are none.

    Attributes:
        on_starts: Whether any is asked when a step begins to run.
    """

    def __init__(self, rules: Iterable[GuardRule] = ()) -> None:
        self.all = tuple(rules)
        self._by_edge: dict[tuple[str, str, str], list[GuardRule]] = {}
        for rule in self.all:
            self._by_edge.setdefault((rule.entity_type, rule.from_state, rule.to_state), []).append(rule)
        self.on_starts = any((rule.entity_type, rule.to_state) == _START for rule in self.all)

    def __bool__(self) -> bool:
        return bool(self.all)

    def on(self, entity_type: str, source: str, target: str, workflow: str | None) -> list[GuardRule]:
        """The rules of an edge that hold for runs of `workflow`, in the order of the file."""
        rules = self._by_edge.get((entity_type, str(source), str(target)), ())
        return [rule for rule in rules if rule.workflow in (None, workflow)]

    def steps_moving_to(self, target: str, workflow: str | None) -> ColumnElement[bool] | None:
        """A condition on `workflow_steps` that meets at least every step with a rule for its move to `target`.

        Returns:
            None where no rule can apply, so that nothing needs to be read.
        """
        conditions = [
            and_(_steps.c.status == rule.from_state, *_with_key(rule.step))
            for rule in self.all
            if (rule.entity_type, rule.to_state) == (STEP_TABLE.entity_type, str(target))
            and rule.workflow in (None, workflow)
        ]
        return or_(*conditions) if conditions else None


def _with_key(key: str | None) -> tuple[ColumnElement[bool], ...]:
    if key is None:
        return ()
    item = and_(_steps.c.parent_id.is_not(None), _steps.c.key.startswith(f"{key}.", autoescape=True))
    return (or_(_steps.c.key == key, item),)


NO_RULES: Final = GuardRules()


def rules_of(holder: Engine | Connection) -> GuardRules:
    """The rules attached to an engine, or to a connection or its engine; `NO_RULES` by default."""
    if isinstance(holder, Connection):
        own = holder.get_execution_options().get(_OWN_OPTION)
        if isinstance(own, GuardRules):
            return own
        # Asked of the engine, not of the copy that the connection has: connections that are kept open outlive a change of rules.
        holder = holder.engine
    found = holder.get_execution_options().get(_OPTION)
    return found if isinstance(found, GuardRules) else NO_RULES


def attach_rules(holder: Engine | Session, rules: GuardRules) -> None:
    """Have everything that goes through an engine, or from now on through a session, obey `rules`."""
    if isinstance(holder, Engine):
        holder.update_execution_options(**{_OPTION: rules})
    elif holder.in_transaction():
        holder.connection().execution_options(**{_OWN_OPTION: rules})
    else:
        # Its next transaction takes a connection of its own; asking for one here would begin the transaction.
        bind = holder.get_bind()
        if isinstance(bind, Engine):
            bind.update_execution_options(**{_OPTION: rules})
        else:
            bind.execution_options(**{_OWN_OPTION: rules})


def require_guards(context: GuardContext, rules: GuardRules, workflow: str | None) -> None:
    """Ask the guards that the table has on the edge, and then those of `rules`, in order.

    Args:
        context: The move.
        rules: Attached guards; `NO_RULES` where only the table's are to be asked.
        workflow: Name of the run's workflow.

    Raises:
        GuardRefused: The first that did not hold.
    """
    table: Any = table_of(context.entity_type)
    source, target = table.parse(context.from_state), table.parse(context.to_state)
    asked = [(name, "") for name in table.guards.get((source, target), ())]
    for rule in rules.on(context.entity_type, source, target, workflow):
        if rule.covers(context.entity):
            asked += [(name, f"attached at {rule.place}" if rule.place else "") for name in rule.guards]
    for name, place in asked:
        said = objection(name, context)
        if said is not None:
            raise GuardRefused(
                entity_type=context.entity_type,
                entity_id=context.entity["id"],
                from_state=source,
                to_state=target,
                allowed=table.targets[source],
                guard=name,
                detail="; ".join(filter(None, (said, place))),
            )

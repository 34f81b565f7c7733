"""The two transition tables, as data.

Validation, `docs/state-machine.md`, its diagrams and the history checker are all derived from `WORKFLOW_TABLE` and
`STEP_TABLE`. There is no other list of edges in the project.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

from interlock.core.errors import UnknownState

from .states import StepState, WorkflowState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["STEP_TABLE", "TABLES", "WORKFLOW_TABLE", "TransitionTable", "table_of"]

S = TypeVar("S", WorkflowState, StepState)


@dataclass(frozen=True, slots=True)
class TransitionTable(Generic[S]):
    """Every legal edge of one kind of entity, and the built-in guards on them.

    Attributes:
        entity_type: `"workflow_run"` or `"workflow_step"`, as the history stores it.
        states: The enum of states.
        targets: For each state, the states that may follow it, in the order in which they are offered.
        guards: For an edge, the names of the guards that must hold.
    """

    entity_type: str
    states: type[S]
    targets: Mapping[S, tuple[S, ...]]
    guards: Mapping[tuple[S, S], tuple[str, ...]]

    def parse(self, state: object) -> S:
        """Return the member that `state` (a member or its value) names.

        Raises:
            UnknownState: No state of this table has that name.
        """
        try:
            return self.states(str(state))
        except ValueError:
            known = tuple(member.value for member in self.states)
            raise UnknownState(entity_type=self.entity_type, state=str(state), known=known) from None

    def allows(self, source: S, target: S) -> bool:
        """Whether `source` → `target` is an edge. A state is not an edge to itself."""
        return target in self.targets[source]

    def sources(self, target: S) -> tuple[S, ...]:
        """The states from which `target` can be reached by one edge."""
        return tuple(source for source, targets in self.targets.items() if target in targets)

    def is_terminal(self, state: S) -> bool:
        """Whether nothing may follow `state`."""
        return not self.targets[state]

    @property
    def terminal(self) -> tuple[S, ...]:
        """The states that nothing may follow."""
        return tuple(state for state in self.states if self.is_terminal(state))

    def edges(self) -> Iterator[tuple[S, S]]:
        """Every edge, in table order."""
        for source, targets in self.targets.items():
            for target in targets:
                yield source, target


_W, _S = WorkflowState, StepState

WORKFLOW_TABLE: TransitionTable[WorkflowState] = TransitionTable(
    entity_type="workflow_run",
    states=WorkflowState,
    targets=MappingProxyType(
        {
            _W.DRAFT: (_W.PLANNING, _W.CANCELLED),
            _W.PLANNING: (_W.EXECUTING, _W.FAILED, _W.CANCELLED),
            _W.EXECUTING: (_W.PAUSED, _W.WAITING_APPROVAL, _W.COMPLETED, _W.FAILED, _W.CANCELLED),
            _W.PAUSED: (_W.EXECUTING, _W.CANCELLED),
            _W.WAITING_APPROVAL: (_W.EXECUTING, _W.CANCELLED),
            _W.COMPLETED: (),
            _W.FAILED: (),
            _W.CANCELLED: (),
        },
    ),
    guards=MappingProxyType(
        {
            (_W.DRAFT, _W.PLANNING): ("has_task_description",),
            (_W.PLANNING, _W.EXECUTING): ("has_valid_plan",),
            (_W.WAITING_APPROVAL, _W.EXECUTING): ("has_approval",),
        },
    ),
)

STEP_TABLE: TransitionTable[StepState] = TransitionTable(
    entity_type="workflow_step",
    states=StepState,
    targets=MappingProxyType(
        {
            _S.PENDING: (_S.RUNNING, _S.SKIPPED, _S.CANCELLED),
            _S.RUNNING: (_S.PAUSED, _S.WAITING_APPROVAL, _S.COMPLETED, _S.FAILED, _S.CANCELLED),
            _S.PAUSED: (_S.RUNNING, _S.CANCELLED),
            _S.WAITING_APPROVAL: (_S.RUNNING, _S.CANCELLED),
            _S.FAILED: (_S.RUNNING,),
            _S.COMPLETED: (),
            _S.SKIPPED: (),
            _S.CANCELLED: (),
        },
    ),
    guards=MappingProxyType({}),
)

TABLES: Mapping[str, TransitionTable[WorkflowState] | TransitionTable[StepState]] = MappingProxyType(
    {WORKFLOW_TABLE.entity_type: WORKFLOW_TABLE, STEP_TABLE.entity_type: STEP_TABLE},
)


def table_of(entity_type: str) -> TransitionTable[WorkflowState] | TransitionTable[StepState]:
    """Return the table of `"workflow_run"` or `"workflow_step"`.

    Raises:
        ValueError: `entity_type` is neither.
    """
    try:
        return TABLES[entity_type]
    except KeyError:
        names = " or ".join(repr(name) for name in TABLES)
        msg = f"entity_type must be {names}, not {entity_type!r}"
        raise ValueError(msg) from None

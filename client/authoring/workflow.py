"""A workflow as an author writes it: in Python, in YAML, or out of a Celery canvas.

All ways lead to the same `PlanSpec`; there is nothing that only one of them can say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Self

from interlock.core.errors import InvalidPlan
from interlock.core.plan import Fault, PlanLimits, PlanSpec, StepSpec, examine_plan

from .canvas import steps_of
from .diagrams import dot, mermaid
from .step import Result, Step, StepOptions
from .yaml_file import dump_yaml, read_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from interlock.core.json_values import Json

__all__ = ["Result", "Step", "StepOptions", "Workflow"]


class Workflow:
    """A named plan, validated when it is made and immutable from then on.

    Args:
        name: Name by which its runs are found.
        task_description: What it is for, in words; not blank.
        steps: `Step` objects, or steps as mappings or `StepSpec`.
        deadline_s: Seconds that a run may take.
        max_parallel: How many steps may be in work at once.
        on_external_revoke: What a foreign revoke does to a step: cancel, pause or redispatch.
        run_through: Whether a process that has completed a step may go on with the next, without a message; steps may differ.
        limits: How large the plan may be; the same limits hold again where it is enqueued.

    Raises:
        InvalidPlan: The plan cannot be run; every fault is listed.
    """

    __slots__ = ("_plan",)

    def __init__(
        self,
        name: str,
        task_description: str,
        steps: Iterable[Step | StepSpec | Mapping[str, Json]],
        *,
        deadline_s: float | None = None,
        max_parallel: int | None = None,
        on_external_revoke: str | None = None,
        run_through: bool = False,
        limits: PlanLimits | None = None,
    ) -> None:
        document = {
            "name": name,
            "task_description": task_description,
            "deadline_s": deadline_s,
            "max_parallel": max_parallel,
            "run_through": run_through,
            "steps": [step.to_dict() if isinstance(step, Step) else step for step in steps],
        }
        if on_external_revoke is not None:
            document["on_external_revoke"] = on_external_revoke
        self._plan = _validated(document, limits)

    @classmethod
    def from_dict(cls, document: Mapping[str, Json] | PlanSpec, *, limits: PlanLimits | None = None) -> Self:
        """A workflow from its JSON form (see `to_dict`) or from a plan.

        Raises:
            InvalidPlan: It cannot be run; every fault is listed.
        """
        return cls._of(_validated(document, limits))

    @classmethod
    def _of(cls, plan: PlanSpec) -> Self:
        workflow = cls.__new__(cls)
        workflow._plan = plan  # noqa: SLF001 - an object of this class
        return workflow

    @classmethod
    def from_yaml(
        cls,
        source: str | Path,
        *,
        limits: PlanLimits | None = None,
        known_tasks: Collection[str] | None = None,
    ) -> Self:
        """A workflow from a YAML file, or from YAML text.

        Args:
            source: A path, or a string: text if it has more than one line or begins with `{`,
                else a path.
            limits: How large the plan may be.
            known_tasks: Names of the tasks that exist; None if that is not known here.

        Raises:
            InvalidPlan: It cannot be run; every fault is listed as `file:line:column: field: …`.
            OSError: The file cannot be read.
        """
        plan, faults = read_yaml(source, lambda document: _examine(document, limits, known_tasks))
        if plan is None:
            raise InvalidPlan(faults)
        return cls._of(plan)

    @classmethod
    def from_canvas(
        cls,
        canvas: object,
        name: str,
        task_description: str,
        *,
        run_through: bool = False,
        limits: PlanLimits | None = None,
    ) -> Self:
        """A workflow that does what a chain, group, chord or Signature does.

        A chain becomes steps in a row, each given the result before it as its first argument unless
        it is immutable; a group runs in parallel; a chord's body is given the list of its header's
        results. Keys are the tasks' last names, numbered where they repeat. For `run_through` and
        `limits` see the class.

        Raises:
            InvalidPlan: A part has no equivalent; each is named with the reason.
        """
        return cls(name, task_description, steps_of(canvas), run_through=run_through, limits=limits)

    @property
    def plan(self) -> PlanSpec:
        """The validated plan."""
        return self._plan

    @property
    def name(self) -> str:
        """Name by which its runs are found."""
        return self._plan.name or ""

    @property
    def task_description(self) -> str:
        """What it is for, in words."""
        return self._plan.task_description or ""

    def to_dict(self) -> dict[str, Json]:
        """The JSON form, without what is as by default."""
        return self._plan.document()

    def to_yaml(self) -> str:
        """The same as YAML text, which `from_yaml` reads back as an equal workflow."""
        return dump_yaml(self.to_dict())

    def to_mermaid(self, states: Mapping[str, str] | None = None) -> str:
        """A Mermaid flowchart; with `states` ({key: state}) the steps are coloured by them."""
        return mermaid(self._plan, states)

    def to_dot(self, states: Mapping[str, str] | None = None) -> str:
        """A Graphviz digraph; with `states` ({key: state}) the steps are coloured by them."""
        return dot(self._plan, states)

    def __eq__(self, other: object) -> bool:
        return self._plan == other._plan if isinstance(other, Workflow) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.name, len(self._plan.steps)))

    def __repr__(self) -> str:
        return f"Workflow({self.name!r}, {len(self._plan.steps)} steps)"


def _validated(document: Mapping[str, Json] | PlanSpec, limits: PlanLimits | None) -> PlanSpec:
    plan, faults = _examine(document, limits)
    if plan is None:
        raise InvalidPlan([str(fault) for fault in faults])
    return plan


def _examine(
    document: object, limits: PlanLimits | None, known_tasks: Collection[str] | None = None
) -> tuple[PlanSpec | None, tuple[Fault, ...]]:
    """Examine a plan that is to be a workflow: unlike a bare plan it has a name and a purpose."""
    plan, faults = examine_plan(document, limits=limits or PlanLimits(), known_tasks=known_tasks)
    named = {fault.path for fault in faults}
    missing = (
        Fault((field,), f"is required: {why}")
        for field, why in _NEEDED.items()
        if (field,) not in named and _is_blank(document, field)
    )
    faults = (*missing, *faults)
    return (None if faults else plan), faults


_NEEDED = {
    "name": "its runs are found by it",
    "task_description": "say what the workflow is for",
}


def _is_blank(document: object, field: str) -> bool:
    if isinstance(document, Mapping):
        value = document.get(field)
    elif isinstance(document, PlanSpec | list):
        value = getattr(document, field, None)
    else:
        return False  # that it is no plan at all is said already
    return value is None or (isinstance(value, str) and not value.strip())

"""A plan as a picture: Mermaid for documents, DOT for Graphviz; coloured by the states of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from interlock.core.model.states import StepState
from interlock.core.plan import Trigger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from interlock.core.plan import PlanSpec, StepSpec

__all__ = ["COLOURS", "dot", "mermaid"]

COLOURS: Final[Mapping[StepState, tuple[str, str, str]]] = {
    StepState.PENDING: ("#f1f3f5", "#868e96", "#343a40"),
    StepState.RUNNING: ("#d0ebff", "#1971c2", "#0b3d6b"),
    StepState.PAUSED: ("#fff3bf", "#e67700", "#664400"),
    StepState.WAITING_APPROVAL: ("#e5dbff", "#6741d9", "#35217a"),
    StepState.COMPLETED: ("#d3f9d8", "#2b8a3e", "#124a1c"),
    StepState.FAILED: ("#ffe3e3", "#c92a2a", "#6e1313"),
    StepState.SKIPPED: ("#ffffff", "#adb5bd", "#868e96"),
    StepState.CANCELLED: ("#dee2e6", "#495057", "#343a40"),
}
"""Fill, border and text of a step in each state."""


def mermaid(plan: PlanSpec, states: Mapping[str, str] | None = None) -> str:
    """A Mermaid flowchart of a plan.

    Args:
        plan: What to draw.
        states: State by step key; steps that are not in it, or in no known state, stay plain.
    """
    return "\n".join([*_mermaid_lines(plan, states or {}), ""])


def dot(plan: PlanSpec, states: Mapping[str, str] | None = None) -> str:
    """A Graphviz digraph of a plan; arguments as for `mermaid`."""
    return "\n".join([*_dot_lines(plan, states or {}), ""])


def _mermaid_lines(plan: PlanSpec, states: Mapping[str, str]) -> Iterator[str]:
    ids = {step.key: f"s{index}" for index, step in enumerate(plan.steps)}
    yield "flowchart TD"
    for step in plan.steps:
        left, right = _mermaid_shape(step)
        label = "<br/>".join(_escaped(line) for line in _label(step))
        yield f'    {ids[step.key]}{left}"{label}"{right}'
    for step in plan.steps:
        arrow = _mermaid_arrow(step)
        yield from (f"    {ids[name]} {arrow} {ids[step.key]}" for name in step.after)
    for state in sorted(_used(plan, states)):
        fill, border, text = COLOURS[state]
        members = ",".join(ids[step.key] for step in plan.steps if states.get(step.key) == state)
        yield f"    classDef {state} fill:{fill},stroke:{border},color:{text}"
        yield f"    class {members} {state}"


def _dot_lines(plan: PlanSpec, states: Mapping[str, str]) -> Iterator[str]:
    yield f"digraph {_quoted(plan.name or 'workflow')} {{"
    yield '    node [shape=box, style="rounded,filled", fillcolor="#ffffff", fontname="Helvetica"];'
    for step in plan.steps:
        attributes = {"label": "\n".join(_label(step)), **_dot_shape(step)}
        attributes |= _dot_colours(states.get(step.key))
        listed = ", ".join(f"{name}={_quoted(value)}" for name, value in attributes.items())
        yield f"    {_quoted(step.key)} [{listed}];"
    for step in plan.steps:
        style = _dot_edge(step)
        yield from (f"    {_quoted(name)} -> {_quoted(step.key)}{style};" for name in step.after)
    yield "}"


def _label(step: StepSpec) -> Iterator[str]:
    yield step.key
    if step.task is not None and step.task != step.key:
        yield step.task
    if step.map is not None:
        yield f"for each of {step.map.over}"
    if step.when is not None:
        yield f"when {step.when}"
    if step.approval is not None and step.task is not None:
        yield "after approval"


def _mermaid_shape(step: StepSpec) -> tuple[str, str]:
    if step.task is None:
        return "{{", "}}"
    return ("[[", "]]") if step.map is not None else ("[", "]")


def _mermaid_arrow(step: StepSpec) -> str:
    if step.trigger is Trigger.ALL_COMPLETED:
        return "-->" if step.when is None else "-.->"
    return f"-. {step.trigger.replace('_', ' ')} .->"


def _dot_shape(step: StepSpec) -> dict[str, str]:
    if step.task is None:
        return {"shape": "hexagon"}
    return {} if step.map is None else {"peripheries": "2"}


def _dot_edge(step: StepSpec) -> str:
    if step.trigger is Trigger.ALL_COMPLETED:
        return "" if step.when is None else " [style=dashed]"
    return f" [style=dashed, label={_quoted(step.trigger.replace('_', ' '))}]"


def _dot_colours(state: str | None) -> dict[str, str]:
    if state is None or state not in COLOURS:
        return {}
    fill, border, text = COLOURS[StepState(state)]
    return {"fillcolor": fill, "color": border, "fontcolor": text}


def _used(plan: PlanSpec, states: Mapping[str, str]) -> set[StepState]:
    found = {states.get(step.key) for step in plan.steps}
    return {state for state in COLOURS if state in found}


def _escaped(text: str) -> str:
    """Mermaid reads entities, written with # in place of &, and little else inside quotes."""
    named = {
        "#": "#35;",
        "&": "#amp;",
        '"': "#quot;",
        "<": "#lt;",
        ">": "#gt;",
        "`": "#96;",
        "\n": " ",
    }
    return "".join(named.get(char, char) for char in text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

"""Mermaid and DOT of a workflow, with the states of a run."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from interlock.client.authoring.diagrams import COLOURS
from interlock.client.authoring.workflow import Step, Workflow
from interlock.core.model.states import StepState

WORKFLOW = Workflow(
    'Orders "x"',
    "d",
    [
        Step("load", "shop.load"),
        Step("each", 'shop."odd" <task> #1 & `co`', after="load", map="results.load"),
        Step("ok", after=["load", "each"], approval=True),
        Step("tidy", "shop.tidy", after="ok", when="results.load.x == 'a\\\\b'"),
        Step("alarm", "shop.alarm", after="ok", trigger="any_failed"),
    ],
)


def test_the_mermaid_flowchart_has_every_step_and_every_edge() -> None:
    lines = WORKFLOW.to_mermaid().splitlines()
    assert lines[0] == "flowchart TD"
    assert '    s0["load<br/>shop.load"]' in lines
    assert any(line.startswith('    s1[["each<br/>') for line in lines)
    assert '    s2{{"ok"}}' in lines
    assert "    s0 --> s1" in lines
    assert "    s0 --> s2" in lines
    assert "    s2 -.-> s3" in lines
    assert "    s2 -. any failed .-> s4" in lines
    assert "classDef" not in WORKFLOW.to_mermaid()


def test_mermaid_labels_cannot_break_out_of_their_quotes() -> None:
    (label,) = re.findall(r's1\[\["(.*)"\]\]', WORKFLOW.to_mermaid())
    assert label == ("each<br/>shop.#quot;odd#quot; #lt;task#gt; #35;1 #amp; #96;co#96;<br/>for each of results.load")


@pytest.mark.parametrize("state", list(StepState))
def test_each_state_has_its_colour_in_both(state: StepState) -> None:
    fill, border, text = COLOURS[state]
    mermaid = WORKFLOW.to_mermaid({"load": state, "ok": state.value})
    assert f"    classDef {state} fill:{fill},stroke:{border},color:{text}\n" in mermaid
    assert f"    class s0,s2 {state}\n" in mermaid
    assert f'"load" [label="load\\nshop.load", fillcolor="{fill}"' in WORKFLOW.to_dot({"load": str(state)})


def test_unknown_steps_and_states_are_left_plain() -> None:
    states = {"each.0": "running", "load": "mystery"}
    assert WORKFLOW.to_mermaid(states) == WORKFLOW.to_mermaid()
    assert WORKFLOW.to_dot(states) == WORKFLOW.to_dot()


def test_the_dot_digraph_has_every_step_and_every_edge() -> None:
    dot = WORKFLOW.to_dot()
    assert dot.startswith('digraph "Orders \\"x\\"" {\n')
    assert dot.endswith("}\n")
    assert dot.count("->") == 5
    assert '    "ok" [label="ok", shape="hexagon"];\n' in dot
    assert '    "load" -> "each";\n' in dot
    assert '    "ok" -> "tidy" [style=dashed];\n' in dot
    assert '    "ok" -> "alarm" [style=dashed, label="any failed"];\n' in dot


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_reads_the_digraph() -> None:
    done = subprocess.run(
        ["dot", "-Tplain"],  # noqa: S607 - wherever it is installed
        input=WORKFLOW.to_dot({"load": "failed"}),
        text=True,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.count("\nnode ") == 5

"""The audit's plan, run without a server, and the demo around it."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from examples.stdlib_audit import tasks
from examples.stdlib_audit.__main__ import history_lines, main
from examples.stdlib_audit.workflow import workflow
from interlock.core.plan import topological_levels
from interlock.core.plan.expressions import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.plan import PlanSpec

KIB = 1024
FIRST = {"seq": 1, "step": None, "from_state": None, "to_state": "draft", "reason": None}


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.fixture
def plan() -> PlanSpec:
    """The validated plan: keys, dependencies and expressions hold, and there is no cycle."""
    return workflow.plan


def test_the_plan_has_fifty_parallel_steps_and_more(plan: PlanSpec) -> None:
    assert [len(level) for level in topological_levels(plan)] == [1, 64, 1, 3, 1]


@pytest.mark.long
def test_the_plan_gives_each_task_what_it_takes(plan: PlanSpec, tmp_path: Path) -> None:
    """Every step in order, expressions evaluated by the core, values as JSON, within the limits."""
    steps = {step.key: step for step in plan.steps}
    by_name = {task.name: task for task in vars(tasks).values() if hasattr(task, "apply_async")}
    context: dict[str, Any] = {"input": {"out": str(tmp_path / "report.html")}, "results": {}}
    for key in itertools.chain.from_iterable(topological_levels(plan)):
        step = steps[key]
        arguments = _json([render(step.args, context), render(step.kwargs, context)])
        assert len(json.dumps(arguments)) < 256 * KIB, key
        result = _json(by_name[step.task](*arguments[0], **arguments[1]))
        assert len(json.dumps(result)) < 1024 * KIB, key
        context["results"][key] = result
    assert context["results"]["collect"]["totals"]["modules"] > 300
    assert (tmp_path / "report.html").stat().st_size == context["results"]["report"]["bytes"]


def test_the_history_is_shown_by_its_ends_and_counts() -> None:
    moves = [
        {"seq": seq, "step": "a", "from_state": "pending", "to_state": "running", "reason": "due"}
        for seq in range(2, 31)
    ]
    lines = list(history_lines([FIRST, *moves]))
    assert lines[0].split() == ["1", "workflow", "draft"]
    assert lines[1].split() == ["2", "a", "pending", "→", "running", "(due)"]
    assert lines[6].strip() == "… 20 more"
    assert lines[10].split()[0] == "30"
    assert lines[11:] == ["  1 rows of workflow: 1 draft", "  29 rows of steps: 29 running"]
    assert len(list(history_lines([FIRST, *moves[:2]]))) == 5


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | None], None]:
    """Put a run with the given final status and report (None: not written) in the server's place."""

    def _replace(status: str, report: str | None) -> None:
        def run_embedded(out: str) -> tuple[str, list[dict[str, Any]]]:
            if report is not None:
                Path(out).write_text(report, encoding="utf-8")
            return status, [FIRST]

        fake = SimpleNamespace(run_embedded=run_embedded)
        monkeypatch.setitem(sys.modules, "examples.stdlib_audit.embedded", fake)

    return _replace


def test_the_demo_succeeds_with_a_report(
    server: Callable[[str, str | None], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "report.html"
    server("completed", "<p>done</p>")
    assert main(["--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(("status", "report"), [("failed", None), ("cancelled", "<p>half</p>"), ("completed", None)])
def test_the_demo_fails_unless_the_workflow_completed_and_reported(
    server: Callable[[str, str | None], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: str,
    report: str | None,
) -> None:
    """An older report at the same place does not count."""
    out = tmp_path / "report.html"
    out.write_text("old", encoding="utf-8")
    server(status, report)
    assert main(["--out", str(out)]) == 1
    assert f"ended {status}" in capsys.readouterr().err

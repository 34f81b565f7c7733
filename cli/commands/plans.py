"""The commands about plans: `validate` and `graph`; and finding a workflow by what was typed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from interlock.cli.applications import import_module, load_app
from interlock.cli.connection import connect
from interlock.cli.failures import EXIT_REFUSED
from interlock.cli.options import Options, OptionsCommand
from interlock.cli.output.screen import Screen
from interlock.core.errors import InvalidPlan

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import ModuleType

    from interlock.client.authoring.workflow import Workflow
    from interlock.client.client import Client

__all__ = ["Found", "draw_graph", "find_workflow", "graph", "known_tasks", "names_a_plan", "validate", "validate_files"]

_SUFFIXES: Final = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Found:
    """A workflow, and where it came from.

    Attributes:
        workflow: The workflow.
        module: The module that defines it; None for a file.
    """

    workflow: Workflow
    module: ModuleType | None = None


def names_a_plan(target: str) -> bool:
    """Whether a text names a file or `module:attribute`, and not a run."""
    return ":" in target or target.endswith(_SUFFIXES) or Path(target).exists()


def find_workflow(target: str, tasks: Collection[str] | None = None) -> Found:
    """Read a workflow from a YAML file, or import it as `module:attribute`.

    Args:
        target: What was typed.
        tasks: Names of the tasks that exist, to check those of a file; None where that is not known.

    Raises:
        click.BadParameter: There is no such file, module or attribute.
        InvalidPlan: The file's plan has faults; every one is listed.
    """
    from interlock.client.authoring.workflow import Workflow

    if Path(target).is_file() or target.endswith(_SUFFIXES):
        try:
            return Found(Workflow.from_yaml(Path(target), known_tasks=tasks))
        except OSError as error:
            raise _bad(f"{target}: {error.strerror}") from error
    name, _, attribute = target.partition(":")
    if not attribute:
        raise _bad(f"{target!r} is neither a file nor module:workflow")
    try:
        module = import_module(name)
    except ImportError as error:
        raise _bad(f"{target}: {error}") from error
    workflow = getattr(module, attribute, None)
    if not isinstance(workflow, Workflow):
        what = f"is a {type(workflow).__name__}" if hasattr(module, attribute) else "does not exist"
        raise _bad(f"{target}: {attribute} {what}; a Workflow is needed")
    return Found(workflow, module)


def validate_files(files: Sequence[str], screen: Screen, tasks: Collection[str] | None = None) -> bool:
    """Check workflow files and say what is wrong with each, with line and column.

    Returns:
        Whether all are valid.
    """
    reports = [_validate(file, tasks) for file in files]
    if screen.as_json:
        screen.document(reports)
    for report in () if screen.as_json else reports:
        if report["valid"]:
            screen.line(f"{report['file']}: {report['name']}, {report['steps']:,} steps in {report['levels']:,} levels")
        for fault in report["faults"]:
            screen.line(fault, style="red")
    return all(report["valid"] for report in reports)


def draw_graph(workflow: Workflow, style: str, states: dict[str, str] | None = None) -> str:
    """A workflow as `mermaid` or `dot` text, coloured by the state of each step where states are given."""
    return workflow.to_dot(states) if style == "dot" else workflow.to_mermaid(states)


def known_tasks(options: Options) -> frozenset[str] | None:
    """Names of the app's tasks; None where no app was named."""
    app = options.application or (load_app(options.app) if options.app else None)
    if app is None:
        return None
    app.loader.import_default_modules()
    app.finalize()
    return frozenset(app.tasks)


@click.command(
    "validate",
    cls=OptionsCommand,
    examples=("interlock validate order.yaml", "interlock -A shop.application validate workflows/*.yaml"),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
def validate(options: Options, files: tuple[str, ...]) -> None:
    """Check workflow files: every fault with its line. With -A, whether their tasks exist, too."""
    if not validate_files(files, Screen.of(options), known_tasks(options)):
        raise click.exceptions.Exit(EXIT_REFUSED)


@click.command(
    "graph",
    cls=OptionsCommand,
    examples=(
        "interlock graph order.yaml",
        "interlock graph shop.workflows:order --format dot | dot -Tsvg > order.svg",
        "interlock graph 7d0c2f6e-…",
    ),
)
@click.argument("target", metavar="FILE|MODULE:WORKFLOW|RUN_ID")
@click.option(
    "--format", "style", type=click.Choice(["mermaid", "dot"]), default="mermaid", show_default=True, help="For what."
)
def graph(options: Options, target: str, *, style: str) -> None:
    """Draw a plan, or a run in colours, as Mermaid or Graphviz text."""
    if names_a_plan(target):
        text = draw_graph(find_workflow(target).workflow, style)
    else:
        with connect(options) as client:
            text = _graph_of_run(client, target, style)
    if options.as_json:
        Screen.of(options).document({"format": style, "text": text})
    else:
        sys.stdout.write(text)


def _graph_of_run(client: Client, run_id: str, style: str) -> str:
    from interlock.client.authoring.workflow import Workflow

    run = client.status(run_id)
    plan = {
        "name": run["name"] or run_id,
        "task_description": run["task_description"] or run_id,
        "steps": [_step_of_run(step) for step in run["steps"]],
    }
    states = {step["key"]: step["status"] for step in run["steps"]}
    return draw_graph(Workflow.from_dict(plan), style, states)


def _step_of_run(step: dict[str, Any]) -> dict[str, Any]:
    plain = {"key": step["key"], "after": step["after"]}
    return plain | ({"approval": True} if step["task"] is None else {"task": step["task"]})


def _validate(file: str, tasks: Collection[str] | None) -> dict[str, Any]:
    from interlock.core.plan import topological_levels

    try:
        workflow = find_workflow(file, tasks).workflow
    except InvalidPlan as error:
        return {"file": file, "valid": False, "faults": list(error.faults)}
    levels = topological_levels(workflow.plan)
    known = {"name": workflow.name, "steps": len(workflow.plan.steps), "levels": len(levels)}
    return {"file": file, "valid": True, "faults": [], **known}


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message)

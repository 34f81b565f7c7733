"""`interlock run`: start a workflow from a file or a module and follow it, on whatever server there is, or on one of its own."""

from __future__ import annotations

import json
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interlock.cli.applications import app_path_near
from interlock.cli.connection import find_target, open_client
from interlock.cli.failures import EXIT_REFUSED, AppNotFound
from interlock.cli.options import Options, OptionsCommand
from interlock.cli.output.screen import Screen

from .following import follow, report_end, unfollowed_on_interrupt
from .plans import find_workflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.client.authoring.workflow import Workflow
    from interlock.client.client import Client

    from .plans import Found

__all__ = ["read_input", "run", "run_workflow"]


def run_workflow(
    client: Client,
    workflow: Workflow,
    screen: Screen,
    *,
    document: Any = None,
    key: str | None = None,
    advice: str | None = None,
) -> bool:
    """Enqueue a workflow and follow it to its end.

    Args:
        client: Of the server that is to execute it.
        workflow: The workflow.
        screen: Where to show it.
        document: Its input, JSON.
        key: Idempotency key; a key that was used before means the run that exists.
        advice: What to say of the run at Ctrl-C, where it does not simply go on.

    Returns:
        Whether it completed.

    Raises:
        click.exceptions.Exit: Ctrl-C, with code 130.
    """
    run_id = client.enqueue(workflow, document, key)
    screen.note(f"run {run_id}")
    with unfollowed_on_interrupt(run_id, screen, advice):
        follow(client, run_id, screen)
        return report_end(client, run_id, screen)


def read_input(typed: str | None) -> Any:
    """The input as typed: JSON, `@file` with JSON, or `@-` for standard input.

    Raises:
        click.BadParameter: It is not JSON, or the file cannot be read.
    """
    if typed is None:
        return None
    try:
        return json.loads(_text_of(typed))
    except OSError as error:
        raise click.BadParameter(f"{typed[1:]}: {error.strerror}", param_hint="--input") from error
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--input") from error


@click.command(
    "run",
    cls=OptionsCommand,
    examples=(
        "interlock run -A shop.application order.yaml --input '{\"order\": 17}'",
        "interlock run shop.workflows:order --input @order.json",
        "interlock run shop.workflows:order --detach --idempotency-key order-17",
    ),
)
@click.argument("target", metavar="FILE.yaml|MODULE:WORKFLOW")
@click.option("--input", "typed", metavar="JSON|@FILE", help="The run's input: JSON, @file, or @- for standard input.")
@click.option("--idempotency-key", "key", metavar="KEY", help="A key that was used before means the run that exists.")
@click.option("--detach", is_flag=True, help="Print the run's id and do not follow it.")
@click.option(
    "--embedded/--no-embedded",
    default=None,
    help="Start a server for this run, or never do; by default where none is configured or running.",
)
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Steps at once on a server of its own.")
def run(
    options: Options,
    target: str,
    *,
    typed: str | None,
    key: str | None,
    detach: bool,
    embedded: bool | None,
    concurrency: int | None,
) -> None:
    """Run a workflow and follow it; the exit code is 0 only if it completes.

    It runs where the options, the environment or the app's configuration say; else on the `interlock dev` of this
    folder; else on a server that is started for it and stopped with it. Ctrl-C leaves the run as it is.
    """
    screen = Screen.of(options)
    document = read_input(typed)
    found = find_workflow(target)
    if options.app is None and options.application is None and found.module is not None:
        options = replace(options, app=app_path_near(found.module))
    place = None if embedded else find_target(options, with_app=True)
    is_own = embedded is not False and (place is None or not place.is_meant)
    if detach and is_own:
        message = "nothing would execute it: start `interlock dev` first, or leave --detach out"
        raise click.UsageError(message)
    if is_own:
        advice = f"the run is kept: it goes on when `interlock dev -A {options.app}` starts here"
        with _own_server(options, found, screen, concurrency) as client:
            completed = run_workflow(client, found.workflow, screen, document=document, key=key, advice=advice)
    else:
        with closing(open_client(options, place)) as client:
            if detach:
                _enqueue(client, found.workflow, screen, document, key)
                return
            completed = run_workflow(client, found.workflow, screen, document=document, key=key)
    if not completed:
        raise click.exceptions.Exit(EXIT_REFUSED)


def _enqueue(client: Client, workflow: Workflow, screen: Screen, document: Any, key: str | None) -> None:
    run_id = client.enqueue(workflow, document, key)
    screen.done({"run_id": run_id}, run_id)
    screen.note(f"to follow it: interlock watch {run_id}")


@contextmanager
def _own_server(options: Options, found: Found, screen: Screen, concurrency: int | None) -> Iterator[Client]:
    from interlock.cli.dev.server import EmbeddedServer

    if options.app is None:
        what = "this file" if found.module is None else found.module.__name__
        raise AppNotFound("?", f"which Celery app has the tasks of {what}? Name it with -A module:app")
    data_dir = options.data_dir
    screen.note(
        f"no Interlock database is configured and no server runs in {data_dir}: starting one there for this run"
    )
    queues = {step.queue for step in found.workflow.plan.steps if step.queue}
    server = EmbeddedServer(options.app, data_dir, concurrency=concurrency, queues=sorted(queues))
    try:
        with server, server.client(session_id=options.session_id, actor=options.actor_name) as client:
            yield client
    except KeyboardInterrupt:  # the second one, while it stops
        server.kill()
        raise


def _text_of(typed: str) -> str:
    if not typed.startswith("@"):
        return typed
    return sys.stdin.read() if typed == "@-" else Path(typed[1:]).read_text(encoding="utf-8")

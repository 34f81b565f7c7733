"""`interlock run`: start a workflow from a file or a module and follow it, on whatever server there is, or on one of its own."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .applications import app_path_near
from .connection import find_target, open_client
from .failures import EXIT_REFUSED, AppNotFound
from .following import follow, report_end, unfollowed_on_interrupt
from .options import Options, Verb
from .plans import find_workflow
from .screen import Screen
from .server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .connection import Operator
    from .plans import Found

__all__ = ["read_input", "run", "run_workflow"]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a run is executed: a client, and whether its server goes away with this command."""

    client: Operator
    is_own: bool


def run_workflow(
    client: Operator, found: Found, screen: Screen, *, document: Any, key: str | None, detach: bool
) -> bool:
    """Enqueue a workflow and follow it to its end.

    Args:
        client: Of the server that is to execute it.
        found: The workflow.
        screen: Where to show it.
        document: Its input, JSON.
        key: Idempotency key; a key that was used before means the run that exists.
        detach: Do not follow it.

    Returns:
        Whether it completed, or was only to be enqueued.
    """
    run_id = client.enqueue(found.workflow, document, key)
    if detach:
        screen.done({"run_id": run_id}, run_id)
        screen.note(f"interlock watch {run_id} follows it")
        return True
    screen.note(f"run {run_id}")
    with unfollowed_on_interrupt(run_id, screen):
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
        text = (
            typed
            if not typed.startswith("@")
            else sys.stdin.read()
            if typed == "@-"
            else Path(typed[1:]).read_text("utf-8")
        )
        return json.loads(text)
    except OSError as error:
        raise click.BadParameter(f"{typed[1:]}: {error.strerror}", param_hint="--input") from error
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--input") from error


@click.command(
    "run",
    cls=Verb,
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
    help="Start a server for this run, or never do; by default where no server is configured or running.",
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

    It runs on the server that is named or configured, else on the `interlock dev` of this folder, else on a server that
    is started for it and stopped with it. Ctrl-C leaves it running.
    """
    screen = Screen.of(options)
    document = read_input(typed)
    found = find_workflow(target)
    if options.app is None and options.application is None and found.module is not None:
        options = replace(options, app=app_path_near(found.module))
    with _place(options, found, screen, embedded=embedded, concurrency=concurrency) as place:
        if detach and place.is_own:
            message = "nothing would execute it: start `interlock dev` first, or leave --detach out"
            raise click.UsageError(message)
        completed = run_workflow(place.client, found, screen, document=document, key=key, detach=detach)
    if not completed:
        raise click.exceptions.Exit(EXIT_REFUSED)


@contextmanager
def _place(
    options: Options,
    found: Found,
    screen: Screen,
    *,
    embedded: bool | None,
    concurrency: int | None,
) -> Iterator[_Place]:
    target = None if embedded else find_target(options, with_app=True)
    if target is None and embedded is not False:
        with _own_server(options, found, screen, concurrency) as server:
            yield _Place(server, is_own=True)
        return
    client = open_client(options, target)
    try:
        yield _Place(client, is_own=False)
    finally:
        client.close()


@contextmanager
def _own_server(options: Options, found: Found, screen: Screen, concurrency: int | None) -> Iterator[Operator]:
    if options.app is None:
        what = "the tasks of this workflow" if found.module is None else f"the tasks of {found.module.__name__}"
        raise AppNotFound("?", f"which Celery app has {what}? Name it with -A module:app")
    screen.note(f"no server is running: starting one in {options.data_dir} for this run")
    queues = {step.queue for step in found.workflow.plan.steps if step.queue}
    server = EmbeddedServer(options.app, options.data_dir, concurrency=concurrency, queues=sorted(queues))
    try:
        with server, server.client(session_id=options.session_id, actor=options.actor_name) as client:
            yield client
    except KeyboardInterrupt:
        server.kill()
        raise

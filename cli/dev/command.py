"""`interlock dev`: everything on one machine, in the foreground, until Ctrl-C."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from threading import Event, Lock
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from interlock.cli.applications import load_app
from interlock.cli.failures import AppNotFound
from interlock.cli.options import Options, OptionsCommand
from interlock.cli.output.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .server import EmbeddedServer

__all__ = ["dev", "serve"]

_STYLES: Final = {"server": "bold", "worker": "blue"}


class _Log:
    """The server's lines on the screen, each with the name of the part that said it."""

    def __init__(self, screen: Screen, *, quiet: bool) -> None:
        self._screen, self._quiet = screen, quiet
        self._lock = Lock()

    def __call__(self, name: str, line: str) -> None:
        """Print a line; the server's own are printed in any case."""
        if name != "server" and self._quiet:
            return
        with self._lock, suppress(ValueError):  # the stream may be closed when a late line comes
            self._screen.note(Text.assemble((f"{name:<6} │ ", _STYLES.get(name, "")), line), style="")


def serve(server: EmbeddedServer, screen: Screen) -> None:
    """Run a server until SIGINT, SIGTERM or SIGHUP; a second one kills what still runs.

    Raises:
        ServerFailed: A part did not start, or would not stay up.
        ServerRunning: Another server has the folder.
    """
    with _signals_interrupt():
        try:
            server.start()
            _announce(server, screen)
            server.supervise(Event())
        except KeyboardInterrupt:
            screen.note("stopping: steps that run may finish; Ctrl-C again does not wait for them")
        finally:
            _stop(server)
    screen.note("stopped")


@click.command(
    "dev",
    cls=OptionsCommand,
    examples=(
        "interlock dev -A shop.application:app",
        "interlock dev -A shop.application:app --concurrency 8 --quiet",
        "interlock dev -A shop.application:app --data /tmp/try",
    ),
)
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", help="Steps at once. Default: one per core, 2 to 8."
)
@click.option("--port", type=click.IntRange(1, 65_535), metavar="PORT", help="Port of its Redis. Default: a free one.")
@click.option("--queues", metavar="A,B", help="Queues to take tasks from, besides those that the app declares.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show what the worker logs; it is in a file, too.")
def dev(options: Options, *, concurrency: int | None, port: int | None, queues: str | None, quiet: bool) -> None:
    """Run all that is needed: SQLite, a Redis of its own, a worker.

    Nothing has to be installed or running. The database and the logs are in .interlock, where other commands find the
    server by themselves. What still ran when it was stopped goes on the next time. Ctrl-C stops it, with all that it
    started.
    """
    from .server import EmbeddedServer

    screen = Screen.of(options)
    app = options.app
    if app is None:
        raise AppNotFound("?", "which Celery app? Name it with -A module:app")
    server = EmbeddedServer(
        app,
        options.data_dir,
        concurrency=concurrency,
        port=port,
        queues=[name.strip() for name in (queues or "").split(",") if name.strip()],
        on_line=_Log(screen, quiet=quiet),
    )
    serve(server, screen)


def _announce(server: EmbeddedServer, screen: Screen) -> None:
    if screen.as_json:
        urls = {"database_url": server.database_url, "broker_url": server.broker_url, "redis_url": server.broker_url}
        screen.document({"ready": True, "pid": os.getpid(), "app": server.app, "data": str(server.data_dir), **urls})
        return
    host = server.broker_url.rpartition("@")[2].removeprefix("redis://").removesuffix("/0")
    app = load_app(server.app)
    app.loader.import_default_modules()
    tasks = sum(not name.startswith("celery.") for name in app.tasks)
    rows = {
        "app": f"{server.app}, {tasks} tasks",
        "database": server.database_url,
        "redis": f"{server.redis_kind} on {host}",
        "worker": f"{server.concurrency} steps at once, log in {server.data_dir / 'worker.log'}",
    }
    for name, value in rows.items():
        screen.line(Text.assemble(("✓ ", "green"), (f"{name:<10}", "bold"), value))
    screen.line(Text("ready: `interlock run …`, `interlock list` in another terminal; Ctrl-C stops", style="green"))
    if server.redis_kind == "fakeredis":
        screen.line(Text("This is an imitation of Redis, for trying only: slow, and with gaps.", style="yellow"))


def _stop(server: EmbeddedServer) -> None:
    try:
        server.stop()
    except KeyboardInterrupt:
        server.kill()


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP inside the block do what Ctrl-C does."""

    def interrupt(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {signum: signal.signal(signum, interrupt) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)

"""The doors by which an operator comes in: the client with a database, the client with the control queue alone, the commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from click.testing import CliRunner

from interlock.cli.main import interlock
from interlock.core.errors import InterlockError

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock import Client
    from tests.worker.deployment import Deployment

DOORS: Final = ("client", "queue", "command line")


class Refused(Exception):
    """A verb was refused, by whichever door.

    Attributes:
        error: Name of the error's class.
    """

    def __init__(self, error: str, message: str) -> None:
        self.error = error
        super().__init__(message)


class CommandLine:
    """`interlock …` in this process, with addresses alone: it knows no app."""

    def __init__(self, deployment: Deployment) -> None:
        urls = ("--database-url", deployment.database_url, "--broker-url", deployment.broker.url(0))
        self._shared = (*urls, "--redis-url", deployment.events.url(0), "--actor", "tester", "--json")

    def __call__(self, verb: str, *words: str, **options: str | None) -> Any:
        """Run a command; returns what it printed.

        Raises:
            Refused: It was refused.
        """
        given = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
        line = (*self._shared, verb, *words, *given)
        result = CliRunner().invoke(interlock, line, prog_name="interlock", catch_exceptions=False)
        if result.exit_code:
            error = json.loads(result.stderr)
            raise Refused(error["error"], error["message"])
        return json.loads(result.stdout)


class ClientDoor:
    """A client called as the commands are: by verb, with words."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, verb: str, *words: str, **options: str | None) -> Any:
        """Call the verb; `settle` takes its result as JSON, as on the command line.

        Raises:
            Refused: It was refused.
        """
        if verb == "settle":
            run_id, step, result = words
            arguments: tuple[Any, ...] = (run_id, step, json.loads(result))
        else:
            arguments = words
        call: Callable[..., Any] = getattr(self._client, verb)
        try:
            answer = call(*arguments, **options)
        except InterlockError as error:
            raise Refused(type(error).__name__, str(error)) from error
        if verb == "rerun":
            return {"run_id": answer}
        return [change.data() for change in answer] if verb == "history" else answer

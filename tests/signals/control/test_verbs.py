"""A verb is declared once: its operation in core, its method of the client and its command agree with the table."""

from __future__ import annotations

import inspect
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
import pytest

from interlock import Client
from interlock.cli.command_group import SECTIONS
from interlock.cli.main import interlock
from interlock.core import WorkflowController
from interlock.core.settings import Settings
from interlock.signals.control.fields import Args, Name
from interlock.signals.control.verbs import VERBS, Change, Hint, Query, Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic.fields import FieldInfo

    from interlock.signals.control.command import Command

REQUIRED: Final = inspect.Parameter.empty

# What is meant to differ. The plan brings its own name and description; a page's size is the client's business; the command line
# takes times as people say them.
IN_CLIENT: Final[dict[str, dict[str, str | None]]] = {
    "enqueue": {"plan": "workflow", "name": None, "task_description": None},
    "replay": {"limit": None},
}
IN_COMMAND: Final[dict[str, dict[str, str | None]]] = {
    "replay": {"limit": None},
}
CLIENT_ALONE: Final = {"enqueue": {"db_session"}}


def disagreements(verb: Verb, client: type = Client, commands: Mapping[str, click.Command] | None = None) -> list[str]:
    """Where the operation, the client's method or the command says something else than the table."""
    found = [*_of_operations(verb), *_of_command(verb, _commands() if commands is None else commands)]
    return found if isinstance(verb, Hint) else [*found, *_of_client(verb, client)]


def _operations(verb: Verb) -> dict[str, Callable[..., Any]]:
    if isinstance(verb, Change):
        both = {"on_run": verb.on_run, "on_step": verb.on_step}
        return {name: operation for name, operation in both.items() if operation is not None}
    return {"read": verb.read} if isinstance(verb, Query) else {}


def _of_operations(verb: Verb) -> Iterator[str]:
    fields = verb.args.model_fields
    if isinstance(verb, Change):
        step = fields.get("step")
        if (verb.on_step is None) != (step is None):
            yield "a step may be named, or there is an operation on a step, and not both"
        if (verb.on_run is None) != (step is not None and step.is_required()):
            yield "a step must be named, or there is an operation on a run, and not both"
    for name, operation in _operations(verb).items():
        given = {field: _default(info) for field, info in fields.items()}
        if isinstance(verb, Change):
            given |= {"reason": None, "transitioned_by": REQUIRED}
            given.pop("step", None)
            given |= {"step": REQUIRED} if name == "on_step" else {}
        else:
            given |= {"session_id": REQUIRED}
        given |= {"run_id": REQUIRED} if verb.needs_run else {}
        ours = {"connection" if isinstance(verb, Query) else "self"}
        taken = {each: parameter for each, parameter in _parameters(operation).items() if each not in ours}
        for missing in given.keys() - taken.keys() - {"reason", "transitioned_by"}:
            yield f"{name} does not take {missing}"
        for needed in [each for each, default in taken.items() if default is REQUIRED and each not in given]:
            yield f"{name} needs {needed}, which nobody gives it"
        for each in given.keys() & taken.keys():
            if REQUIRED not in (given[each], taken[each]) and given[each] != taken[each]:
                yield f"{name} has another default of {each}: {taken[each]!r}"


def _of_client(verb: Verb, client: type) -> Iterator[str]:
    method = getattr(client, verb.client_method, None)
    if method is None:
        yield f"the client has no {verb.client_method}"
        return
    expected: dict[str, Any] = {"id": REQUIRED} if verb.needs_run else {}
    for name, info in verb.args.model_fields.items():
        called = IN_CLIENT.get(verb.name, {}).get(name, name)
        expected |= {} if called is None else {called: _default(info)}
    if any("reason" in _parameters(operation) for operation in _operations(verb).values()):
        expected["reason"] = None
    if isinstance(verb, Change):
        expected["request_id"] = None
    taken = {name: default for name, default in _parameters(method).items() if name != "self"}
    taken = {name: taken[name] for name in taken.keys() - CLIENT_ALONE.get(verb.name, set())}
    for missing in expected.keys() - taken.keys():
        yield f"the client's {verb.client_method} does not take {missing}"
    for unknown in taken.keys() - expected.keys():
        yield f"the client's {verb.client_method} takes {unknown}, which the verb has not"
    for name in expected.keys() & taken.keys():
        if taken[name] is not REQUIRED and taken[name] != expected[name]:  # it may ask for what the queue leaves open
            yield f"the client's {verb.client_method} has another default of {name}: {taken[name]!r}"


def _of_command(verb: Verb, commands: Mapping[str, click.Command]) -> Iterator[str]:
    command = commands.get(verb.client_method)
    if (command is not None) != verb.has_command:
        yield f"the command line has {'a' if command else 'no'} command {verb.client_method}"
        return
    if command is None:
        return
    expected = {"run_id": REQUIRED} if verb.needs_run else {}
    expected |= {name: _default(info) for name, info in verb.args.model_fields.items()}
    if any("reason" in _parameters(operation) for operation in _operations(verb).values()):
        expected["reason"] = None
    required = [param for param in command.params if param.required]
    typed = [
        word for param in required for word in ([param.opts[0], "1"] if isinstance(param, click.Option) else ["1"])
    ]
    params = command.make_context(verb.client_method, typed).params
    needed = {param.name for param in required}
    for name, default in expected.items():
        called = IN_COMMAND.get(verb.name, {}).get(name, name)
        if called is None:
            continue
        if called not in params:
            yield f"the command {verb.client_method} does not take {called}"
        elif called not in needed and params[called] != default:
            yield f"the command {verb.client_method} has another default of {called}"


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def _default(info: FieldInfo) -> Any:
    return REQUIRED if info.is_required() else info.default


def _commands() -> dict[str, click.Command]:
    context = click.Context(interlock)
    names = [name for section in SECTIONS.values() for name in section]
    return {name: command for name in names if (command := interlock.get_command(context, name)) is not None}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_operation_client_and_command_agree_with_the_table(verb: Verb) -> None:
    assert disagreements(verb) == []


def test_what_people_ask_of_a_run_is_a_verb() -> None:
    """A method of the controller that the table does not know could be reached in Python alone."""
    known = {operation for verb in VERBS.values() for operation in _operations(verb).values()}
    methods = inspect.getmembers(WorkflowController, inspect.isfunction)
    left = {name for name, method in methods if not name.startswith("_") and method not in known}
    assert left == {"create_workflow", "get_workflow_status", "can_pause", "can_resume", "can_cancel"}


VALUES: Final[dict[str, Any]] = {
    "plan": {"steps": []},
    "input": {"a": 1},
    "meta": {"b": 2},
    "result": [3],
    "limit": 4,
    "after_seq": 5,
    "created_after": datetime(2026, 1, 31, tzinfo=UTC),
    "created_before": datetime(2026, 2, 1, tzinfo=UTC),
    "start_at": datetime(2026, 2, 2, tzinfo=UTC),
}
"""An argument for each name; of the others, the name itself."""


@pytest.mark.parametrize(
    "verb", [verb for verb in VERBS.values() if not isinstance(verb, Hint)], ids=lambda verb: verb.name
)
def test_the_clients_method_asks_for_its_verb_with_what_it_is_given(
    verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Command, bool]] = []

    def take(_: Client, command: Command, *, fresh: bool) -> dict[str, Any]:
        asked.append((command, fresh))
        return {"ok": True, "result": {}}

    monkeypatch.setattr(Client, "_outcome", take)
    client = Client(broker_url="memory://", session_id="ours", actor="ada", settings=Settings())
    method = getattr(client, verb.client_method)
    names = IN_CLIENT.get(verb.name, {})
    given = {name: VALUES.get(name, name) for name in verb.args.model_fields if names.get(name, name) is not None}
    called = {str(names.get(name, name)): value for name, value in given.items()}
    called |= {name: name for name in _parameters(method).keys() & {"id", "reason", "request_id"}}
    method(**called)
    [(command, fresh)] = asked[:1]
    assert (command.command, command.session_id, command.actor) == (verb.name, "ours", "ada")
    assert command.workflow_id == ("id" if verb.needs_run else None)
    assert command.reason == called.get("reason")
    assert command.id == "request_id" if isinstance(verb, Change) else fresh
    sent = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in given.items()}
    assert {name: command.args[name] for name in sent} == sent


# --- planted disagreements are found


class _WithMore(Args):
    step: Name | None = None
    mode: str = "interrupt"
    grace_s: float = 1.0


class _OtherClient(Client):
    def pause(  # type: ignore[override] # the planted fault
        self,
        id: str,  # noqa: A002 - SPEC's name
        step: str | None = None,
        mode: str = "drain",
        when: str | None = None,
    ) -> None: ...

    resume = None  # type: ignore[assignment] # as above


PAUSE: Final = VERBS["pause"]
PLANTED: Final[dict[str, tuple[Callable[[], list[str]], set[str]]]] = {
    "a new argument": (
        lambda: disagreements(replace(PAUSE, args=_WithMore)),
        {
            "on_run does not take grace_s",
            "on_step does not take grace_s",
            "the client's pause does not take grace_s",
            "the command pause does not take grace_s",
        },
    ),
    "an argument that is gone": (
        lambda: disagreements(replace(VERBS["settle"], args=VERBS["retry"].args)),
        {"on_step needs result, which nobody gives it", "the client's settle takes result, which the verb has not"},
    ),
    "an operation on steps alone": (
        lambda: disagreements(replace(PAUSE, on_run=None)),  # type: ignore[call-arg] # a Change
        {"a step must be named, or there is an operation on a run, and not both"},
    ),
    "a client of its own mind": (
        lambda: disagreements(PAUSE, _OtherClient),
        {
            "the client's pause does not take reason",
            "the client's pause does not take request_id",
            "the client's pause takes when, which the verb has not",
            "the client's pause has another default of mode: 'drain'",
        },
    ),
    "a client without it": (
        lambda: disagreements(VERBS["resume"], _OtherClient),
        {"the client has no resume"},
    ),
    "a command line without it": (
        lambda: disagreements(PAUSE, commands={}),
        {"the command line has no command pause"},
    ),
    "a command that does something else": (
        lambda: disagreements(PAUSE, commands={"pause": _commands()["list"]}),
        {
            "the command pause does not take run_id",
            "the command pause does not take step",
            "the command pause does not take mode",
            "the command pause does not take reason",
        },
    ),
    "a command that nobody declared": (
        lambda: disagreements(replace(PAUSE, has_command=False)),
        {"the command line has a command pause"},
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_disagreement_is_found(planted: str) -> None:
    find, expected = PLANTED[planted]
    assert set(find()) == expected

"""Registers and evaluates guards: named conditions on edges, given by `@guard` or by entry points of `interlock.guards`.

A guard is a function of a `GuardContext` that returns whether the move may be made. It is evaluated under the workflow's lock, so
what it reads cannot change before the move is written. The three that the tables name are in `built_in_guards`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from interlock.core.errors import ConfigurationError, InterlockError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Guard", "GuardContext", "find_guard", "guard", "known_guards", "objection"]


@dataclass(frozen=True, slots=True)
class GuardContext:
    """What a guard may look at.

    Attributes:
        connection: The open transaction; read only.
        entity_type: `workflow_run` or `workflow_step`.
        entity: The entity's columns as they are before the move.
        from_state: Where it is.
        to_state: Where it is asked to go.
        actor: Who asks.
        reason: Why.
        meta: What came with the request.
        plan: By each step what it waits for, where the plan is not in the tables yet; else None.
    """

    connection: Connection
    entity_type: str
    entity: Mapping[Any, Any]
    from_state: str
    to_state: str
    actor: str
    reason: str | None
    meta: Mapping[str, Any] | None
    plan: Mapping[str, Sequence[str]] | None = None


Guard = Callable[[GuardContext], bool]

_registered: dict[str, Guard] = {}


def guard(name: str) -> Callable[[Guard], Guard]:
    """Register the decorated function as the guard `name`.

    Raises:
        ConfigurationError: Another function has the name.
    """

    def register(function: Guard) -> Guard:
        if _registered.get(name, function) is not function:
            msg = f"guard {name!r} is already registered"
            raise ConfigurationError(msg)
        _registered[name] = function
        return function

    return register


@cache
def _from_entry_points() -> dict[str, Guard]:
    return {point.name: point.load() for point in entry_points(group="interlock.guards")}


def find_guard(name: str) -> Guard:
    """Return the guard `name`.

    Raises:
        ConfigurationError: Nobody registered it.
    """
    found = _registered.get(name) or _from_entry_points().get(name)
    if found is None:
        msg = f"no guard is called {name!r}; known: {', '.join(known_guards())}"
        raise ConfigurationError(msg)
    return found


def known_guards() -> tuple[str, ...]:
    """The names of all guards: built in, registered so far, and of entry points."""
    return tuple(sorted({*_registered, *_from_entry_points()}))


def objection(name: str, context: GuardContext) -> str | None:
    """Ask the guard `name`.

    Returns:
        None where it holds; else what there is to say beyond its name, which may be nothing. A guard that fails does not
        hold; only the database's own errors and Interlock's pass, because those may call for a new try.
    """
    try:
        return None if find_guard(name)(context) else ""
    except (DBAPIError, InterlockError):
        raise
    except Exception as error:  # noqa: BLE001 - a guard is a stranger's code: whatever it raises, the move is not made
        return f"it failed: {type(error).__name__}: {error}"

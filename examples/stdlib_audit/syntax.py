"""Cuts a syntax tree into scopes: module, classes and functions, each with its own nodes."""

from __future__ import annotations

import ast
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REFUSALS = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What the parser raises for a file that it does not take; MemoryError where its stack is full."""

_PARSER = threading.Lock()
"""Two threads that parse at once can end in "AST constructor recursion depth mismatch" (3.11), and
`catch_warnings` is not for threads either. Prefork workers never wait for it."""

FUNCTION_TYPES = (ast.FunctionDef, ast.AsyncFunctionDef)
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
ScopeNode = ast.Module | ast.ClassDef | FunctionNode


@dataclass(frozen=True, slots=True)
class Scope:
    """One module, class or function."""

    node: ScopeNode
    qualname: str
    """As Python's `__qualname__`; empty for the module."""
    parent: ScopeNode | None
    public: bool
    """No name from here up starts with an underscore, and no function is around it."""
    inside_function: bool
    """Runs only when a function is called: it is a function, or is defined in one."""
    nodes: tuple[ast.AST, ...]
    """All nodes below, down to and with nested definitions, not into them."""


def parse(source: bytes) -> ast.Module:
    """Parses a file's bytes, honouring its encoding cookie.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: The parser refuses the file.
    """
    with _PARSER, warnings.catch_warnings():
        # An invalid escape in somebody's string is a warning here, and an error under -W error.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def scopes(tree: ast.Module, *, public: bool = True) -> Iterator[Scope]:
    """Yields the module and all that it defines; each node is in exactly one scope's `nodes`."""
    pending = [Scope(tree, "", None, public, inside_function=False, nodes=_own_nodes(tree))]
    while pending:
        scope = pending.pop()
        yield scope
        pending.extend(_child(node, scope) for node in scope.nodes if isinstance(node, (*FUNCTION_TYPES, ast.ClassDef)))


def _child(node: FunctionNode | ast.ClassDef, around: Scope) -> Scope:
    is_function = isinstance(node, FUNCTION_TYPES)
    separator = ".<locals>." if isinstance(around.node, FUNCTION_TYPES) else "."
    return Scope(
        node,
        qualname=f"{around.qualname}{separator}{node.name}" if around.qualname else node.name,
        parent=around.node,
        public=around.public and not around.inside_function and not node.name.startswith("_"),
        inside_function=around.inside_function or is_function,
        nodes=_own_nodes(node),
    )


def _own_nodes(scope: ScopeNode) -> tuple[ast.AST, ...]:
    found: list[ast.AST] = []
    pending = list(ast.iter_child_nodes(scope))
    while pending:
        node = pending.pop()
        found.append(node)
        if not isinstance(node, (*FUNCTION_TYPES, ast.ClassDef)):
            pending.extend(ast.iter_child_nodes(node))
    return tuple(found)

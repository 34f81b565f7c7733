"""Measures one module: its size, how tangled and how well described it is, what it imports."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from .complexity import band, cyclomatic_complexity
from .syntax import FUNCTION_TYPES, FunctionNode, Scope, parse, scopes

NOTE_TO_SELF = re.compile(r"\b(?:TODO|FIXME|XXX)\b")


class ModuleRow(NamedTuple):
    """One module's figures.

    Travels as a JSON array: 64 parts together must stay below the size limit of arguments.
    """

    module: str
    bytes: int
    lines: int
    classes: int
    functions: int
    """Functions and methods of every depth, async ones included; lambdas are not counted."""
    async_functions: int
    complexity: int
    """Sum over the functions."""
    peak_complexity: int
    """The most complex function's; 0 without functions."""
    documentable: int
    """The module, and its public classes, functions and methods."""
    documented: int
    annotatable: int
    """Parameters (but self and cls) and return values."""
    annotated: int
    bare_excepts: int
    notes: int
    """Comments with TODO, FIXME or XXX."""


class FunctionRow(NamedTuple):
    """One function, for the lists of extremes."""

    complexity: int
    lines: int
    function: str
    path: str
    line: int


class ImportRow(NamedTuple):
    """That one module imports something of one top-level name."""

    target: str
    deferred: bool
    """Only inside functions, that is, not when the module is loaded."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """All that is known of one module."""

    row: ModuleRow
    functions: tuple[FunctionRow, ...]
    imports: tuple[ImportRow, ...]
    bands: Counter[str]


def measure(module: str, path: str, source: bytes) -> Measurement:
    """Measures one module.

    Args:
        module: Its dotted name.
        path: Where it is, for the lists of functions.
        source: The file's bytes.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: The parser refuses the file.
    """
    found = list(scopes(parse(source), public=_is_public(module)))
    callables = [(scope, scope.node) for scope in found if isinstance(scope.node, FUNCTION_TYPES)]
    functions = tuple(_function_row(scope, node, path) for scope, node in callables)
    annotations = [_annotations(scope, node) for scope, node in callables]
    documentable = [scope.node for scope in found if scope.public]
    row = ModuleRow(
        module=module,
        bytes=len(source),
        lines=len(source.splitlines()),
        classes=sum(isinstance(scope.node, ast.ClassDef) for scope in found),
        functions=len(functions),
        async_functions=sum(isinstance(scope.node, ast.AsyncFunctionDef) for scope in found),
        complexity=sum(function.complexity for function in functions),
        peak_complexity=max((function.complexity for function in functions), default=0),
        documentable=len(documentable),
        documented=sum(ast.get_docstring(node, clean=False) is not None for node in documentable),
        annotatable=sum(total for total, _ in annotations),
        annotated=sum(given for _, given in annotations),
        bare_excepts=sum(_is_bare_except(node) for scope in found for node in scope.nodes),
        notes=count_notes(source),
    )
    return Measurement(
        row,
        functions,
        _imports(module, found),
        Counter(band(function.complexity) for function in functions),
    )


def count_notes(source: bytes) -> int:
    """Counts the comments that hold TODO, FIXME or XXX; in strings and names they do not count."""
    # Tokenizing is pure Python up to 3.11, slower than parsing; most files have none of the words.
    if not re.search(NOTE_TO_SELF.pattern.encode(), source):
        return 0
    tokens = tokenize.tokenize(io.BytesIO(source).readline)
    return sum(token.type == tokenize.COMMENT and NOTE_TO_SELF.search(token.string) is not None for token in tokens)


def _is_public(module: str) -> bool:
    return not any(part.startswith("_") and not part.endswith("__") for part in module.split("."))


def _is_bare_except(node: ast.AST) -> bool:
    return isinstance(node, ast.ExceptHandler) and node.type is None


def _function_row(scope: Scope, node: FunctionNode, path: str) -> FunctionRow:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return FunctionRow(cyclomatic_complexity(scope.nodes), lines, scope.qualname, path, node.lineno)


def _annotations(scope: Scope, node: FunctionNode) -> tuple[int, int]:
    """Returns how many annotations the function could have, and has."""
    positional = [*node.args.posonlyargs, *node.args.args]
    if isinstance(scope.parent, ast.ClassDef) and not _is_static(node):
        positional = positional[1:]
    variadic = [argument for argument in (node.args.vararg, node.args.kwarg) if argument]
    given = [argument.annotation for argument in (*positional, *node.args.kwonlyargs, *variadic)]
    given.append(node.returns)
    return len(given), sum(annotation is not None for annotation in given)


def _is_static(node: FunctionNode) -> bool:
    return any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in node.decorator_list)


def _imports(module: str, found: list[Scope]) -> tuple[ImportRow, ...]:
    own = module.partition(".")[0]
    seen: dict[str, bool] = {}
    for scope in found:
        for target in {name for node in scope.nodes for name in _imported(node)} - {own}:
            seen[target] = seen.get(target, True) and scope.inside_function
    return tuple(ImportRow(target, deferred) for target, deferred in sorted(seen.items()))


def _imported(node: ast.AST) -> list[str]:
    """Returns the top-level names that a statement imports; a relative one stays in its package."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []

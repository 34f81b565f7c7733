"""`python -m docs.rooms [--lines] [CHECKOUT …]`: counts the rooms of each package, their floors, arrows and circles.

A room is a folder or a file directly inside a package; `__init__` is the package's own file. An arrow goes from a room to one
that it imports, wherever the import stands: at the top, inside a function, under TYPE_CHECKING. A room's floor is the length of
the longest chain of rooms below it, itself included. What is loaded by a name in a string (the table of commands) is not seen.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["PACKAGES", "ROOT", "Arrow", "Graph", "House", "code_lines", "main"]

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("cli", "worker", "client", "signals", "migrations", "core")
_BESIDE: Final = ("tests", "typing_tests", "docs", "benchmarks", "examples")
_OWN: Final = "__init__"
_BLANK: Final = frozenset(
    {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT),
        *(tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER),
    }
)


@dataclass(frozen=True, slots=True)
class Arrow:
    """One module imports another.

    Attributes:
        source: Module that imports, `interlock.core.events`.
        target: Module that is imported.
        typing_only: Whether only type checkers see it.
    """

    source: str
    target: str
    typing_only: bool


@dataclass(frozen=True)
class Graph:
    """Nodes, and which of them import which.

    Attributes:
        nodes: Their names.
        arrows: Pairs of the node that imports and the one that is imported.
    """

    nodes: frozenset[str]
    arrows: frozenset[tuple[str, str]]

    def below(self, node: str) -> set[str]:
        """The nodes that a node imports."""
        return {target for source, target in self.arrows if source == node}

    @cached_property
    def reachable(self) -> Mapping[str, frozenset[str]]:
        """Node → all that it imports, directly or not; itself only where it stands in a circle."""
        direct = {node: self.below(node) for node in self.nodes}
        return {node: _closure(node, direct) for node in self.nodes}

    @cached_property
    def circles(self) -> frozenset[frozenset[str]]:
        """Groups of nodes of which each reaches each."""
        reach = self.reachable
        return frozenset(
            frozenset(other for other in reach[node] if node in reach[other])
            for node in self.nodes
            if node in reach[node]
        )

    @cached_property
    def floors(self) -> Mapping[str, int]:
        """Node → its floor; those that import none are on floor 1, and a circle is on one floor."""
        found: dict[str, int] = {}
        for node in sorted(self.nodes, key=lambda node: len(self.reachable[node] | {node})):
            strictly_below = (other for other in self.reachable[node] if node not in self.reachable[other])
            found[node] = 1 + max((found[other] for other in strictly_below), default=0)
        return found

    @cached_property
    def reduced(self) -> frozenset[tuple[str, str]]:
        """The arrows without those that a longer way implies. Those between the nodes of a circle all stay."""
        reach = self.reachable
        return frozenset(
            (source, target)
            for source, target in self.arrows
            if source in reach[target]
            or not any(
                target in reach[other] and not {source, other} & reach[target]
                for other in self.below(source) - {target}
            )
        )


class House:
    """The packages of a checkout, read without being imported.

    Args:
        root: The checkout.

    Attributes:
        modules: Name → file.
        arrows: Every import of one of these modules by another.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = dict(_modules(root))
        self.arrows = [arrow for name, path in self.modules.items() for arrow in _imports(name, path, self.modules)]

    def rooms(self, package: str = "", *, typing_too: bool = True) -> Graph:
        """The rooms of a package; of `interlock` itself where none is named.

        Args:
            package: `core`, or a folder in it such as `core.plan`.
            typing_too: Count what only type checkers see.
        """
        prefix = f"interlock.{package}" if package else "interlock"
        nodes = {_room(name, prefix) for name in self.modules} - {None}
        pairs = {
            (_room(arrow.source, prefix), _room(arrow.target, prefix))
            for arrow in self.arrows
            if typing_too or not arrow.typing_only
        }
        inside = {(source, target) for source, target in pairs if source and target and source != target}
        return Graph(frozenset(node for node in nodes if node), frozenset(inside))

    def files(self, package: str) -> Graph:
        """The modules of a package, however deep."""
        prefix = f"interlock.{package}"
        nodes = frozenset(name for name in self.modules if name == prefix or name.startswith(f"{prefix}."))
        pairs = {(arrow.source, arrow.target) for arrow in self.arrows if {arrow.source, arrow.target} <= nodes}
        return Graph(nodes, frozenset(pairs))


def code_lines(text: str) -> int:
    """Lines that hold code: without blank ones, comments, and strings that stand alone (docstrings)."""
    strings = [
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    told = {line for lines in strings for line in lines}
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _BLANK:
            held.update(range(token.start[0], token.end[0] + 1))
    return len(held - told)


def main(arguments: Sequence[str]) -> int:
    """Print the figures of one checkout or several.

    Returns:
        The exit code: 1 where there is a circle.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.rooms", description="Count rooms, floors, arrows and circles."
    )
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT], metavar="CHECKOUT")
    parser.add_argument("--lines", action="store_true", help="count lines of code, comments and docstrings left out")
    given = parser.parse_args(arguments)
    found = 0
    for checkout in given.checkouts:
        if len(given.checkouts) > 1:
            print(f"{checkout}:")  # noqa: T201 - a command's output
        if given.lines:
            lines = _line_table(checkout)
        else:
            house = House(checkout)
            found += sum(len(house.rooms(package).circles) for package in PACKAGES)
            lines = _figures(house)
        print("\n".join(lines))  # noqa: T201 - a command's output
    return int(found > 0)


def _figures(house: House) -> Iterator[str]:
    yield f"{'package':<12}{'rooms':>6}{'floors':>8}{'arrows':>8}{'typing':>8}{'circles':>9}{'files':>7}{'circles':>9}"
    for package in PACKAGES:
        rooms, files = house.rooms(package), house.files(package)
        typing = len(rooms.arrows) - len(house.rooms(package, typing_too=False).arrows)
        floors = max(rooms.floors.values(), default=0)
        yield (
            f"{package:<12}{len(rooms.nodes):>6}{floors:>8}{len(rooms.arrows):>8}{typing:>8}{len(rooms.circles):>9}"
            f"{len(files.nodes):>7}{len(files.circles):>9}"
        )
    named = {circle for package in PACKAGES for circle in house.files(package).circles}
    for circle in sorted(named, key=sorted):
        yield f"circle: {', '.join(sorted(circle))}"


def _line_table(root: Path) -> Iterator[str]:
    yield f"{'folder':<14}{'files':>6}{'lines':>9}{'of code':>9}"
    product = [_lines_of(root / folder) for folder in (*PACKAGES, "src/interlock")]
    for folder, counts in zip((*PACKAGES, "src"), product, strict=True):
        yield _line_row(folder, counts)
    yield _line_row("the package", [sum(column) for column in zip(*product, strict=True)])
    for folder in _BESIDE:
        yield _line_row(folder, _lines_of(root / folder))


def _lines_of(folder: Path) -> list[int]:
    texts = [path.read_text(encoding="utf-8") for path in _python_files(folder)]
    return [len(texts), sum(len(text.splitlines()) for text in texts), sum(map(code_lines, texts))]


def _line_row(name: str, counts: Sequence[int]) -> str:
    return f"{name:<14}{counts[0]:>6}{counts[1]:>9,}{counts[2]:>9,}"


def _python_files(folder: Path) -> list[Path]:
    """The Python files of a folder; not through the links from src/ to the other folders."""
    return sorted(
        path for path in folder.rglob("*.py") if not any(part.is_symlink() for part in _between(folder, path))
    )


def _between(folder: Path, path: Path) -> Iterable[Path]:
    return (parent for parent in path.parents if parent.is_relative_to(folder) and parent != folder)


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in (*PACKAGES, "src/interlock"):
        for path in _python_files(root / folder):
            parts = path.relative_to(root / "src" if folder.startswith("src") else root).with_suffix("").parts
            whole = parts if parts[0] == "interlock" else ("interlock", *parts)
            yield ".".join(whole[:-1] if whole[-1] == _OWN else whole), path


def _imports(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[Arrow]:
    package = name if path.stem == _OWN else name.rpartition(".")[0]
    for node, typing_only in _import_statements(ast.parse(path.read_text(encoding="utf-8"))):
        for target in _targets(node, package, modules):
            if target in modules and target != name:
                yield Arrow(name, target, typing_only)


def _import_statements(block: ast.AST, *, typing_only: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """The imports in a block and in the blocks inside it, and whether only type checkers see them."""
    for node in ast.iter_child_nodes(block):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, typing_only
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from _import_statements(ast.Module(node.body, []), typing_only=True)
            yield from _import_statements(ast.Module(node.orelse, []), typing_only=typing_only)
        elif not isinstance(node, ast.expr):
            yield from _import_statements(node, typing_only=typing_only)


def _targets(node: ast.AST, package: str, modules: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in modules else module


def _room(module: str, prefix: str) -> str | None:
    """The room of a package in which a module is; None for one outside."""
    if module == prefix:
        return _OWN
    head, found, rest = module.partition(f"{prefix}.")
    return rest.partition(".")[0] if found and not head else None


def _closure(node: str, direct: Mapping[str, set[str]]) -> frozenset[str]:
    found: set[str] = set()
    ahead = list(direct[node])
    while ahead:
        at = ahead.pop()
        if at not in found:
            found.add(at)
            ahead.extend(direct[at])
    return frozenset(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

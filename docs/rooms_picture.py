"""The picture of the rooms in ARCHITECTURE.md, drawn from the imports: Mermaid, one line for each room and what it stands on."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from .rooms import ROOT, House

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["render"]

_OWN: Final = "__init__"
_WIDTH: Final = 80


def render(package: str = "") -> str:
    """The rooms of a package, or the packages themselves, from the top floor down; without arrows that a longer way implies."""
    graph = _house().rooms(package)
    rooms = sorted(graph.nodes - {_OWN}, key=lambda room: (-graph.floors[room], room))
    lines = ["```mermaid", "flowchart TD"]
    for room in rooms:
        lines += _lines(room, sorted(target for source, target in graph.reduced if source == room))
    return "\n".join([*lines, "```", ""])


def _lines(room: str, below: list[str]) -> Iterator[str]:
    """`room --> a & b`, in as many lines as its width asks for."""
    line = f"    {room}"
    for number, target in enumerate(below):
        longer = f"{line} {'&' if number else '-->'} {target}"
        if len(longer) > _WIDTH:
            yield line
            longer = f"    {room} --> {target}"
        line = longer
    yield line


@cache
def _house() -> House:
    return House(ROOT)

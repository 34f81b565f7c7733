"""YAML that anybody may have written, as nodes: not nested so deep that composing it would end the process.

Composing recurses, in C where libyaml is there, so the depth is looked at before, event by event. Small files can also expand to
billions of values by anchors: `expanded_size` says so without expanding them. Nothing here makes objects of tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from .json_values import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DEEPEST", "MOST_VALUES", "FastLoader", "Position", "TooDeep", "compose", "expanded_size", "position_of"]

DEEPEST: Final = MAX_DEPTH + 8
"""How deep nodes may be nested: arguments as JSON may, and they are some levels down."""

MOST_VALUES: Final = 1_000_000
"""How many values a document may have, each anchor counted as often as it is used."""

Position = tuple[int, int]
"""Line and column, from 1."""

FastLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; PyYAML can be built without it


class TooDeep(yaml.YAMLError):
    """It is nested more than `DEEPEST` deep.

    Attributes:
        position: Where it begins to be.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        super().__init__(f"nested more than {DEEPEST} deep")


def compose(data: str | bytes, loader: Any = FastLoader) -> yaml.Node | None:
    """The nodes of a document; None where it is empty.

    Raises:
        TooDeep: It is nested more than `DEEPEST` deep.
        yaml.YAMLError: It is not YAML.
    """
    depth = 0
    try:
        for event in yaml.parse(data, Loader=loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEEPEST:
                raise TooDeep(position_of(event))
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem) and error.problem_mark is not None:
            # libyaml looks ahead, and may meet a limit of its own before we see ours.
            raise TooDeep((error.problem_mark.line + 1, error.problem_mark.column + 1)) from error
        raise
    node: yaml.Node | None = yaml.compose(data, Loader=loader)
    return node


def expanded_size(node: yaml.Node | None) -> int:
    """How many values the nodes stand for, each anchor counted wherever it is used.

    Raises:
        TooDeep: Anchors nest more than `DEEPEST` deep; one that holds itself does.
    """
    return _size(node, {}, 0)


def _size(node: yaml.Node | None, known: dict[int, int], depth: int) -> int:
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if depth > DEEPEST:
        raise TooDeep(position_of(node))
    if id(node) not in known:
        known[id(node)] = 1 + sum(_size(part, known, depth + 1) for part in _parts(node))
    return known[id(node)]


def _parts(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return (part for pair in node.value for part in pair)
    parts: Iterable[yaml.Node] = node.value
    return parts


def position_of(node: yaml.Node | yaml.Event) -> Position:
    """Where a node or event begins."""
    mark: Any = node.start_mark  # PyYAML's stubs allow None, its parsers never leave it out
    return mark.line + 1, mark.column + 1

"""Cyclomatic complexity after McCabe: one, plus one for each place where the flow divides."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BRANCHES = frozenset(
    {
        ast.If,
        ast.IfExp,
        ast.For,
        ast.AsyncFor,
        ast.While,
        ast.ExceptHandler,
        ast.Assert,
    }
)
"""Nodes that add exactly one path. `elif` is an `If`; `else`, `finally` and `with` add none."""

BANDS = ((5, "1-5"), (10, "6-10"), (20, "11-20"), (50, "21-50"))
"""Upper bound and name of each band of complexity but the last."""
LAST_BAND = "51+"


def cyclomatic_complexity(nodes: Iterable[ast.AST]) -> int:
    """Counts the paths through one function.

    Args:
        nodes: All nodes of the function, without those of functions and classes defined inside it,
            which have a complexity of their own. Lambdas belong to the function around them.
    """
    return 1 + sum(map(decision_points, nodes))


def decision_points(node: ast.AST) -> int:
    """Returns how many paths one node adds: `a and b and c` two, `x for x in y if x` two."""
    if type(node) in BRANCHES:
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        return 0 if _always_matches(node) else 1
    return 0


def band(complexity: int) -> str:
    """Names the band that a function's complexity falls in."""
    return next((name for bound, name in BANDS if complexity <= bound), LAST_BAND)


def _always_matches(case: ast.match_case) -> bool:
    """`case _:` and `case name:` are the `else` of a match."""
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None

"""The plans that are searched: two or three steps each, and between them every rule that the model knows.

How far a plan reaches is the product of what its steps can do at the same time, so steps side by side are given less to do
than steps one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .plans import Plan, StepPlan, retrying

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALL", "SMALL"]

_LATER = retrying(max_attempts=2, max_lost=2, delay_s=1)
_AT_ONCE = retrying(max_attempts=2, max_lost=2)
_ONCE_LATER = retrying(max_attempts=2, delay_s=1)
_LOST_TWICE = retrying(max_lost=2)

#: Searched with every `make test`, in a second or two.
SMALL: Final[Mapping[str, Plan]] = {
    "one step": Plan([StepPlan("a", policy=_LATER, on_revoke="redispatch")]),
    "two in a row": Plan(
        [
            StepPlan("a", on_failure="pause", policy=_ONCE_LATER, on_revoke="pause"),
            StepPlan("b", ("a",), "all_settled"),
        ],
    ),
    "a handler": Plan(
        [StepPlan("a", on_failure="continue", policy=_LOST_TWICE), StepPlan("b", ("a",), "any_failed")],
    ),
    "a gate": Plan(
        [StepPlan("a", asks=True, works=False, on_reject="continue"), StepPlan("b", ("a",), policy=_LOST_TWICE)],
    ),
    "a question": Plan(
        [
            StepPlan("a", asks=True, on_failure="pause", default="approve", on_revoke="redispatch"),
            StepPlan("b", on_failure="continue", on_revoke="pause"),
        ],
    ),
    "conditions": Plan(
        [
            StepPlan("a", condition=None, on_failure="continue"),
            StepPlan("b", ("a",), "any_failed"),
            StepPlan("c", ("b",), condition=False),
        ],
    ),
    "a join": Plan([StepPlan("a"), StepPlan("b"), StepPlan("c", ("a", "b"))]),
}

_LARGE: Final[Mapping[str, Plan]] = {
    "chain": Plan(
        [
            StepPlan("a", policy=_LATER),
            StepPlan("b", ("a",), on_failure="continue", policy=_LATER, on_revoke="redispatch"),
            StepPlan("c", ("b",), "all_settled", policy=_LATER, on_revoke="pause"),
        ],
    ),
    "chain that pauses": Plan(
        [
            StepPlan("a", on_failure="pause", policy=_LATER),
            StepPlan("b", ("a",), "all_settled", on_failure="pause", policy=_AT_ONCE),
            StepPlan("c", ("b",), policy=_ONCE_LATER),
        ],
    ),
    "fan-out": Plan(
        [
            StepPlan("a", policy=_LATER),
            StepPlan("b", ("a",), on_failure="continue", policy=_LOST_TWICE, on_revoke="redispatch"),
            StepPlan("c", ("a",), on_failure="pause", on_revoke="pause"),
        ],
    ),
    "fan-out and join": Plan(
        [
            StepPlan("a"),
            StepPlan("b", ("a",), on_failure="continue", policy=_LOST_TWICE),
            StepPlan("c", ("a",)),
            StepPlan("d", ("b", "c"), "all_settled"),
        ],
    ),
    "fan-in": Plan(
        [StepPlan("a", policy=_LATER, on_revoke="redispatch"), StepPlan("b", policy=_LATER), StepPlan("c", ("a", "b"))]
    ),
    "fan-in of failures": Plan(
        [
            StepPlan("a", on_failure="continue"),
            StepPlan("b", on_failure="pause"),
            StepPlan("c", ("a", "b"), "all_settled"),
        ],
    ),
    "triangle": Plan(
        [
            StepPlan("a", on_failure="continue"),
            StepPlan("b", ("a",), "any_failed", policy=_LOST_TWICE),
            StepPlan("c", ("a", "b"), "all_settled", on_failure="pause"),
        ],
    ),
    "handler": Plan(
        [
            StepPlan("a", on_failure="continue", policy=_LATER),
            StepPlan("b", ("a",), "any_failed"),
            StepPlan("c", ("a",), policy=_LOST_TWICE),
        ],
    ),
    "side by side": Plan(
        [
            StepPlan("a"),
            StepPlan("b", policy=_LOST_TWICE, on_revoke="redispatch"),
            StepPlan("c", policy=_ONCE_LATER, on_revoke="pause"),
        ]
    ),
    "gate and work": Plan(
        [
            StepPlan("a", on_failure="continue", policy=_ONCE_LATER, on_revoke="redispatch"),
            StepPlan("g", asks=True, works=False, on_reject="continue"),
            StepPlan("c", ("a", "g"), "all_settled"),
        ],
    ),
    "gate in a chain": Plan(
        [
            StepPlan("a", on_failure="pause", policy=_LATER),
            StepPlan("g", ("a",), asks=True, works=False),
            StepPlan("c", ("g",), on_failure="continue"),
        ],
    ),
    "three questions": Plan(
        [
            StepPlan("a", asks=True, works=False, on_reject="continue", default="approve"),
            StepPlan("b", asks=True, on_failure="continue", on_reject="continue", policy=_LOST_TWICE),
            StepPlan("c", ("a",), asks=True, on_failure="pause"),
        ],
    ),
    "condition that pauses": Plan(
        [
            StepPlan("a", on_failure="continue"),
            StepPlan("b", ("a",), "all_settled", condition=None, on_failure="pause"),
            StepPlan("c", ("a",), "all_settled", condition=False),
        ],
    ),
    "question that cannot be asked": Plan(
        [
            StepPlan("a", condition=None, asks=True, on_failure="continue"),
            StepPlan("b", ("a",), "any_failed", on_failure="continue"),
            StepPlan("c", ("a",)),
        ],
    ),
}

ALL: Final[Mapping[str, Plan]] = {**SMALL, **_LARGE}

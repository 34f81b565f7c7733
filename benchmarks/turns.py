"""Whose turn it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["turns"]

T = TypeVar("T")


def turns(subjects: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Every subject once a round, in each round in another order, so that nobody always comes after the same one."""
    for number in range(1, rounds + 1):
        first = (number - 1) % len(subjects)
        for subject in [*subjects[first:], *subjects[:first]]:
            yield number, subject

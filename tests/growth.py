"""How the cost of something grows with its size: machines differ by more than any limit in seconds could allow for."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["grows_linearly"]

_TIMES_LARGER = 16
_AT_MOST = 4 * _TIMES_LARGER  # what is quadratic grows by 256; caches double what is linear


def grows_linearly(cost: Callable[[int], Callable[[], object]], size: int) -> bool:
    """Whether an input of `size` takes no more than its share of this process's time over one a sixteenth as large.

    Args:
        cost: Gets a size, prepares an input of it, and returns what is measured; the best of three counts.
        size: Of the larger one.
    """
    small, large = (min(_cpu_s(call) for _ in range(3)) for call in (cost(size // _TIMES_LARGER), cost(size)))
    return large < small * _AT_MOST


def _cpu_s(call: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()  # a collection looks at everything that all tests before have left
    try:
        began = time.process_time()
        call()
        return time.process_time() - began
    finally:
        gc.enable()

"""How tests are given out to the processes of pytest-xdist: whole files, and first those that take long.

A file stays together because its tests share workers and databases. The order makes the processes end at about the same time.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import pytest
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Distribution"]

TOGETHER: Final = ("tests/races/",)
"""Folders whose files go to one process, for they share what takes longer to start than a file takes."""


class Distribution:
    """The plugin."""

    @pytest.hookimpl(trylast=True)  # after the tests have their marks
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the files first that wait for processes and servers in all of their tests."""
        files = [list(group) for _, group in groupby(items, key=lambda item: item.path)]
        files.sort(key=_has_unit_tests)
        items[:] = [item for file in files for item in file]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadFileScheduling | None:
        """With `--dist loadfile`: whole files, in the order that they have here."""
        if config.getoption("dist") != "loadfile":
            return None
        config.option.loadscopereorder = False
        return _Files(config, log)


def _has_unit_tests(items: Iterable[pytest.Item]) -> bool:
    return any(item.get_closest_marker("integration") is None for item in items)


class _Files(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))

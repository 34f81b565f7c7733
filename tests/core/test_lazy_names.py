"""A package's public names are loaded when they are first used, and are otherwise as if they had been imported."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from interlock.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = "wsgiref.headers"
"""A module that nothing else here imports."""


@pytest.fixture
def package() -> Iterator[ModuleType]:
    module = ModuleType("front_door")
    sys.modules["front_door"] = module
    module.__getattr__, module.__dir__ = lazy_names("front_door", {HOME: ["Headers"]})  # type: ignore[method-assign]
    yield module
    del sys.modules["front_door"]


def test_a_name_is_imported_at_its_first_use_and_kept(package: ModuleType) -> None:
    sys.modules.pop(HOME, None)
    assert "Headers" in dir(package)
    assert HOME not in sys.modules
    assert package.Headers is sys.modules[HOME].Headers
    assert vars(package)["Headers"] is package.Headers


def test_a_name_that_is_not_there_is_an_attribute_error_that_names_both(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=r"module 'front_door' has no attribute 'Missing'"):
        _ = package.Missing

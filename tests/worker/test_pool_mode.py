"""The kinds of pools, by the classes that Celery itself would take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import concurrency

from interlock.worker.pool_mode import blocks_main, is_prefork


@pytest.mark.parametrize(
    ("name", "forks", "blocks"), [("prefork", True, False), ("solo", False, True), ("threads", False, False)]
)
def test_a_pool_is_known_by_the_class_that_celery_names(name: str, forks: bool, blocks: bool) -> None:  # noqa: FBT001 - a parameter
    worker = SimpleNamespace(pool_cls=concurrency.get_implementation(name))
    assert (is_prefork(worker), blocks_main(worker)) == (forks, blocks)

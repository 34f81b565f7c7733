"""Celery apps by name."""

from __future__ import annotations

import pytest

from interlock.cli.applications import app_path_near, import_module, load_app
from interlock.cli.failures import AppNotFound


@pytest.mark.usefixtures("package")
def test_the_app_of_a_workflow_is_found_in_its_package() -> None:
    assert app_path_near(import_module("clishop.workflows")) == "clishop.application:shop"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clishop.gone", "no module named 'clishop.gone'"),
        ("clishop.broken", "RuntimeError: half installed"),
        ("clishop.workflows", "no Celery app there"),
        ("clishop.workflows:order", "is a Workflow, not a Celery app"),
    ],
)
def test_a_wrong_app_is_explained(name: str, said: str) -> None:
    with pytest.raises(AppNotFound, match=said):
        load_app(name)


@pytest.mark.usefixtures("package")
def test_an_app_is_found_by_module_alone() -> None:
    assert load_app("clishop.application").main == "clishop"

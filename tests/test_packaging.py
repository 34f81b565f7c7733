"""What is shipped: the package `interlock`, whole, and nothing beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

FOLDERS = ("cli", "client", "core", "migrations", "signals", "worker")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from the sdist, which is built from a copy of the tree."""
    folder = tmp_path_factory.mktemp("packaging")
    tree = folder / "tree"
    shutil.copytree(
        ROOT,
        tree,
        symlinks=True,
        ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist"),
    )
    # By default `build` makes the wheel from the sdist; no isolation, so that no index is asked.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(tree)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        yield wheel


def _modules_of_the_tree() -> set[str]:
    source = ROOT / "src" / "interlock"
    modules = {f"interlock/{path.name}" for path in source.glob("*.py")}
    for folder in FOLDERS:
        modules |= {f"interlock/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
    return modules


def test_the_wheel_holds_interlock_and_nothing_beside_it(wheel: zipfile.ZipFile) -> None:
    top_level = {Path(name).parts[0] for name in wheel.namelist()}
    assert len(top_level) == 2
    assert {"interlock"} == {name for name in top_level if not name.endswith(".dist-info")}


def test_the_wheel_holds_every_module_of_the_tree_and_no_other(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if name.endswith(".py")}
    assert shipped == _modules_of_the_tree()


def test_the_wheel_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert "interlock/py.typed" in wheel.namelist()


def test_the_wheel_holds_each_data_file_of_the_tree(wheel: zipfile.ZipFile) -> None:
    """What lies beside the modules is shipped as well, such as Alembic's template."""
    data = {
        f"interlock/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert data <= set(wheel.namelist())


def test_each_folder_is_reached_through_a_relative_symlink() -> None:
    links = {path.name: path.readlink() for path in (ROOT / "src/interlock").iterdir() if path.is_symlink()}
    assert links == {folder: Path("..", "..", folder) for folder in FOLDERS}

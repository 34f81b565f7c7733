"""The rooms of the packages are counted from the imports, and ARCHITECTURE.md says of each what it is for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from docs.rooms import PACKAGES, ROOT, Graph, House, code_lines, main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package `core` with four rooms and its own file: `top` stands on `middle`, and that on `ground`."""
    files = {
        "core/__init__.py": "from .top import a\n",
        "core/top.py": "from interlock.core.middle import deep\n\ndef a():\n    from .ground import b\n",
        "core/middle/__init__.py": "",
        "core/middle/deep.py": "import interlock.core.ground\n",
        "core/ground.py": "b = 1\n",
        "core/typed.py": "if TYPE_CHECKING:\n    from . import ground\n",
        "signals/__init__.py": "from interlock.core import a\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture(scope="module")
def house() -> House:
    """This checkout's packages."""
    return House(ROOT)


def test_a_folder_and_a_file_of_a_package_are_each_a_room(checkout: Path) -> None:
    assert House(checkout).rooms("core").nodes == {"__init__", "top", "middle", "ground", "typed"}


def test_an_arrow_is_an_import_wherever_it_stands(checkout: Path) -> None:
    arrows = House(checkout).rooms("core").arrows
    below = {("top", "middle"), ("top", "ground"), ("middle", "ground"), ("typed", "ground")}
    assert arrows == {("__init__", "top")} | below


def test_what_only_type_checkers_see_can_be_left_out(checkout: Path) -> None:
    house = House(checkout)
    assert house.rooms("core").arrows - house.rooms("core", typing_too=False).arrows == {("typed", "ground")}


def test_a_floor_is_the_length_of_the_longest_chain_below(checkout: Path) -> None:
    floors = House(checkout).rooms("core").floors
    assert floors == {"ground": 1, "middle": 2, "typed": 2, "top": 3, "__init__": 4}


def test_the_packages_themselves_are_the_rooms_of_the_house(checkout: Path) -> None:
    assert House(checkout).rooms().arrows == {("signals", "core")}


def test_a_circle_is_found_and_stands_on_one_floor(checkout: Path) -> None:
    (checkout / "core/ground.py").write_text("from .middle import deep\n")
    graph = House(checkout).rooms("core")
    assert graph.circles == {frozenset({"ground", "middle"})}
    assert graph.floors["ground"] == graph.floors["middle"] == 1
    assert graph.floors["top"] == 2


def test_an_arrow_that_a_longer_way_implies_is_not_drawn() -> None:
    graph = Graph(frozenset("abc"), frozenset({("a", "b"), ("b", "c"), ("a", "c")}))
    assert graph.reduced == {("a", "b"), ("b", "c")}


def test_comments_docstrings_and_blank_lines_are_no_code() -> None:
    head = '"""What it is.\n\nMore.\n"""\n\n# why\nx = 1  # here\n"""What x is."""\n\n\n'
    text = head + 'def f():\n    """Do."""\n    return """a\nb"""\n'
    assert code_lines(text) == len(["x = 1", "def f():", 'return """a', 'b"""'])


def test_the_command_names_a_circle_and_fails(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(checkout)]) == 0
    (checkout / "core/ground.py").write_text("from . import typed\n")
    assert main([str(checkout)]) == 1
    assert "circle: interlock.core.ground, interlock.core.typed" in capsys.readouterr().out


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_holds_a_circle_of_rooms_or_of_files(house: House, package: str) -> None:
    assert not house.rooms(package).circles
    assert not house.files(package).circles


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_architecture_says_of_every_room_what_it_is_for(house: House, package: str) -> None:
    """A new room gets a row in the table under its package's picture; one that has gone loses it."""
    name = package or "interlock"
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition(f"<!-- end of rooms of {name} -->")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (`.+?`) \| .+ \| .+ \|$", section, re.MULTILINE)
    told = [room for cell in rows for room in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(house.rooms(package).nodes - {"__init__"})

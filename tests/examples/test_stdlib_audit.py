"""The audit's functions on modules with known figures, and its report."""

from __future__ import annotations

import ast
import itertools
import json
import re
from html.parser import HTMLParser
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from examples.stdlib_audit import tasks
from examples.stdlib_audit.analyses import import_cycles
from examples.stdlib_audit.collect import EXTREMES, ImportEdge
from examples.stdlib_audit.complexity import cyclomatic_complexity
from examples.stdlib_audit.measure import Measurement, count_notes, measure
from examples.stdlib_audit.sources import Source, balance, list_sources
from examples.stdlib_audit.syntax import scopes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from examples.stdlib_audit.report import Findings

KNOWN = '''
"""A module."""
import os, sys
from json.decoder import JSONDecodeError


class Shop:
    """A class."""

    def sell(self, item: str, /, count=1, *, tax: float = 0.0) -> int:
        # TODO: refunds
        import decimal
        try:
            return count if item else 0
        except:
            raise

    @staticmethod
    def close(when): ...

    def _hidden(self): ...


async def deliver(*parcels, **options):
    """A coroutine."""
    def pack(): return "TODO: not a comment"
    return pack()
'''


def _measured(source: str, module: str = "known") -> Measurement:
    return measure(module, f"{module}.py", dedent(source).encode())


def _complexity(body: str) -> int:
    tree = ast.parse(dedent(body))
    return next(cyclomatic_complexity(scope.nodes) for scope in scopes(tree) if scope.qualname == "f")


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _run(root: Path, shards: int = 3) -> Findings:
    """Run the tasks one after the other, as the workflow does, and return the report's findings."""
    listing = _json(tasks.list_packages(shards, str(root)))
    parts = [_json(tasks.audit_shard(shard)) for shard in listing["shards"]]
    metrics = _json(tasks.merge_metrics(parts, expected_modules=listing["modules"]))
    return {
        "python": listing["python"],
        "root": listing["root"],
        "totals": metrics["totals"],
        "packages": metrics["packages"],
        "refused": metrics["refused"],
        "complexity": _json(
            tasks.analyse_complexity(metrics["modules"], metrics["bands"], metrics["complex"], metrics["long"])
        ),
        "imports": _json(tasks.analyse_imports(metrics["imports"])),
        "documentation": _json(tasks.analyse_documentation(metrics["packages"], metrics["totals"])),
    }


def _write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text), encoding="utf-8")
    return root


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Two packages, two modules, one of them in Python 2, and what is not to be read."""
    broken = {"old.py": "print 'hello'\n"}
    left_out = (
        "test/test_shop.py",
        "shop/tests/data.py",
        "site-packages/x.py",
        "shop/idle_test/y.py",
    )
    return _write(
        tmp_path / "library",
        {
            "shop/__init__.py": KNOWN,
            "shop/till.py": "import decimal\ndef count(a):\n    return [b for b in a if b]\n",
            "decimal.py": "import numbers\nimport not_of_the_library\n",
            "numbers/__init__.py": "import decimal\nfrom . import shop\n",
            **broken,
            **dict.fromkeys(left_out, "raise SystemExit\n"),
        },
    )


# One module


def test_a_module_is_measured_by_its_syntax() -> None:
    row = _measured(KNOWN).row
    assert (row.classes, row.functions, row.async_functions) == (1, 5, 1)
    assert row.lines == len(KNOWN.splitlines())
    assert row.bytes == len(KNOWN.encode())
    assert (row.bare_excepts, row.notes) == (1, 1)


def test_docstrings_count_for_public_names_only() -> None:
    """Public are the module, Shop, sell, close and deliver; sell and close have no docstring."""
    row = _measured(KNOWN).row
    assert (row.documented, row.documentable) == (3, 5)
    assert _measured(KNOWN, module="_known").row.documentable == 0


def test_annotations_count_without_self_and_with_the_return_value() -> None:
    """Sell 3 of 4, close 0 of 2 (it has no self), _hidden 0 of 1, deliver 0 of 3, pack 0 of 1."""
    row = _measured(KNOWN).row
    assert (row.annotated, row.annotatable) == (3, 11)


def test_functions_are_named_with_their_line_and_length() -> None:
    found = {row.function: row for row in _measured(KNOWN).functions}
    assert set(found) == {
        "Shop.sell",
        "Shop.close",
        "Shop._hidden",
        "deliver",
        "deliver.<locals>.pack",
    }
    sell = found["Shop.sell"]
    assert KNOWN.splitlines()[sell.line - 1].strip().startswith("def sell(")
    assert (sell.complexity, sell.lines, sell.path) == (3, 7, "known.py")


def test_an_import_inside_a_function_is_deferred_unless_it_is_also_made_at_load() -> None:
    source = """
        import re
        from . import sibling
        from known.part import thing
        if re:
            from xml.dom import minidom
        def f():
            import re, json
    """
    assert set(_measured(source).imports) == {("re", False), ("xml", False), ("json", True)}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("def f(): pass", 1),
        ("def f():\n if a: pass\n elif b: pass\n else: pass", 3),
        ("def f():\n for a in b:\n  while c: break\n else: pass", 3),
        ("def f():\n try: pass\n except A: pass\n except B: pass\n finally: pass", 3),
        ("def f():\n with a: assert b", 2),
        ("def f(): return a and b and c or d", 4),
        ("def f(): return (x if y else z)", 2),
        ("def f(): return {a for a in b if c if d}", 4),
        ("def f(): return lambda a: a or b", 2),
        ("def f():\n match a:\n  case 1: pass\n  case B(): pass\n  case _: pass", 3),
        ("def f():\n match a:\n  case 1 | 2: pass\n  case x if x > 2: pass\n  case y: pass", 3),
        ("async def f():\n async for a in b:\n  if a: await a", 3),
        ("def f():\n def g():\n  if a: pass\n return g", 1),
        ("def f():\n class G:\n  def h(self):\n   if a: pass\n return G", 1),
    ],
)
def test_complexity_is_one_more_than_the_branches(body: str, expected: int) -> None:
    assert _complexity(body) == expected


def test_only_comments_count_as_notes() -> None:
    source = b'# TODO\nx = "TODO"  # fine\ny = 1  # XXX and FIXME\nTODO = 2\n# TODOS\n'
    assert count_notes(source) == 2


def test_a_file_in_another_encoding_is_read_by_its_cookie() -> None:
    source = '# -*- coding: latin-1 -*-\n"""Grüße."""  # TODO: grüßen\n'.encode("latin-1")
    row = measure("greeting", "greeting.py", source).row
    assert (row.documented, row.notes) == (1, 1)


def test_a_doubtful_escape_in_a_string_is_not_an_error() -> None:
    """It is a warning of the compiler, and the tests run with warnings as errors."""
    assert _measured(r'x = "\d"').row.lines == 1


# Listing and shards


def test_every_module_is_in_exactly_one_shard(library: Path) -> None:
    listing = list_sources(3, str(library))
    names = [source["module"] for shard in listing["shards"] for source in shard["sources"]]
    assert sorted(names) == ["decimal", "numbers", "old", "shop", "shop.till"]
    assert listing["modules"] == 5


def test_shards_differ_by_no_more_than_the_heaviest_module() -> None:
    listing = list_sources(64)
    loads = [sum(source["bytes"] for source in shard["sources"]) for shard in listing["shards"]]
    heaviest = max(source["bytes"] for shard in listing["shards"] for source in shard["sources"])
    assert sum(loads) == listing["bytes"]
    assert min(loads) > 0
    assert max(loads) - min(loads) <= heaviest


def test_shards_are_balanced_by_bytes_and_not_by_number() -> None:
    sizes = (90, 30, 30, 30, 50, 40)
    sources = [Source(module=f"m{n}", path=f"m{n}.py", bytes=size) for n, size in enumerate(sizes)]
    loads = [sum(source["bytes"] for source in group) for group in balance(sources, 3)]
    assert loads == [90, 80, 100]


def test_the_order_of_the_files_does_not_change_the_shards(library: Path) -> None:
    sources = [source for shard in list_sources(1, str(library))["shards"] for source in shard["sources"]]
    expected = balance(sources, 3)
    assert all(balance(order, 3) == expected for order in itertools.permutations(sources))


def test_more_shards_than_modules_leave_some_empty(library: Path) -> None:
    listing = list_sources(8, str(library))
    assert sum(not shard["sources"] for shard in listing["shards"]) == 3
    assert tasks.audit_shard({"root": str(library), "sources": []})["modules"] == []


def test_a_folder_without_modules_and_no_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Python source under"):
        list_sources(4, str(tmp_path))
    with pytest.raises(ValueError, match="shards must be at least 1, not 0"):
        list_sources(0)


# Join and analyses


def test_a_file_that_the_parser_refuses_is_named_and_not_fatal(library: Path) -> None:
    findings = _run(library)
    assert [(item["path"], item["line"]) for item in findings["refused"]] == [("old.py", 1)]
    assert findings["refused"][0]["error"].startswith("SyntaxError: ")
    assert (findings["totals"]["modules"], findings["totals"]["refused"]) == (4, 1)


@pytest.mark.parametrize(
    "source",
    [b"x = 1\0\n", b"-" * 100_000 + b"1", b"x" + b".y" * 100_000, b"# coding: klingon\n", b"\xff\n"],
    ids=["null byte", "parser stack", "tree depth", "unknown encoding", "no UTF-8"],
)
def test_whatever_the_parser_says_is_not_fatal(source: bytes, tmp_path: Path) -> None:
    (tmp_path / "strange.py").write_bytes(source)
    (tmp_path / "fine.py").write_bytes(b"x = 1\n")
    findings = _run(tmp_path)
    assert [item["path"] for item in findings["refused"]] == ["strange.py"]
    assert findings["totals"]["modules"] == 1


def test_packages_sum_up_their_modules(library: Path) -> None:
    findings = _run(library)
    shop = next(row for row in findings["packages"] if row["package"] == "shop")
    assert (shop["modules"], shop["functions"], shop["peak_complexity"]) == (2, 6, 3)
    for field in ("lines", "functions", "complexity", "documented", "annotatable"):
        assert findings["totals"][field] == sum(row[field] for row in findings["packages"])


def test_the_order_of_the_parts_does_not_change_the_metrics(library: Path) -> None:
    parts = [tasks.audit_shard(shard) for shard in list_sources(4, str(library))["shards"]]
    metrics = [_json(tasks.merge_metrics(list(order))) for order in itertools.permutations(parts)]
    assert all(other == metrics[0] for other in metrics)


def test_a_missing_or_repeated_part_is_noticed(library: Path) -> None:
    parts = [tasks.audit_shard(shard) for shard in list_sources(3, str(library))["shards"]]
    with pytest.raises(ValueError, match="a shard's part is missing"):
        tasks.merge_metrics(parts[1:], expected_modules=5)
    with pytest.raises(ValueError, match="measured more than once"):
        tasks.merge_metrics([*parts, *parts])


def test_the_extremes_are_those_of_one_shard_with_all_modules(tmp_path: Path) -> None:
    """However the modules are dealt out, the lists name the same functions."""
    files = {f"m{number:02d}.py": f"def f{number}():\n" + " if a: pass\n" * number for number in range(2 * EXTREMES)}
    root = _write(tmp_path, files)
    one, many = _run(root, shards=1), _run(root, shards=7)
    assert one["complexity"] == many["complexity"]
    assert [row["complexity"] for row in one["complexity"]["functions"]] == list(range(2 * EXTREMES, EXTREMES, -1))


def test_imports_lead_only_to_the_library(library: Path) -> None:
    spots = {row["package"]: row for row in _run(library)["imports"]["hot_spots"]}
    assert "not_of_the_library" not in spots
    assert (spots["decimal"]["fan_in"], spots["decimal"]["fan_out"]) == (2, 1)
    assert (spots["shop"]["fan_in"], spots["shop"]["fan_out"]) == (0, 4)


def test_cycles_are_groups_that_load_each_other() -> None:
    def edges(*pairs: str, eager: bool = True) -> Iterable[ImportEdge]:
        return (ImportEdge(importer=pair[0], target=pair[1], eager=eager) for pair in pairs)

    loaded = [*edges("ab", "bc", "ca", "cd", "de", "ed", "fa")]
    assert import_cycles(loaded) == [["a", "b", "c"], ["d", "e"]]
    assert import_cycles([*edges("ab"), *edges("ba", eager=False)]) == []


def test_functions_are_counted_by_band(library: Path) -> None:
    bands = dict(_run(library)["complexity"]["bands"])
    assert bands == {"1-5": 6, "6-10": 0, "11-20": 0, "21-50": 0, "51+": 0}


# The report


class _Outline(HTMLParser):
    """Collects what the tests ask of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(" ".join(data.split()))


def test_the_report_shows_the_figures(library: Path, tmp_path: Path) -> None:
    findings = _run(library)
    target = tmp_path / "deep" / "report.html"
    result = tasks.write_report(findings, str(target))
    assert result == {"path": str(target), "bytes": target.stat().st_size}
    page = target.read_text(encoding="utf-8")
    words = _Outline(page).words
    assert {f"{findings['totals']['lines']:,}", "modules in 3 packages", "Shop.sell"} <= set(words)
    assert "shop/__init__.py:10" in words
    assert any(word.startswith("SyntaxError: ") for word in words)
    assert page.count("<svg") == 4


def test_the_report_needs_no_other_file(library: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    tasks.write_report(_run(library), str(target))
    page = target.read_text(encoding="utf-8")
    outline = _Outline(page)
    assert [link for link in outline.links if not link.startswith("#")] == []
    assert {link.removeprefix("#") for link in outline.links} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))
    assert re.search(r"@import|<script|<link|url\((?!#)", page) is None


def test_the_report_has_no_colour_of_its_own_in_its_plots(library: Path, tmp_path: Path) -> None:
    """Only CSS variables, which differ between light, dark and paper."""
    target = tmp_path / "report.html"
    tasks.write_report(_run(library), str(target))
    plots = re.findall(r"<svg.*?</svg>", target.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [re.findall(r"(?:fill|stroke): #\w+", plot) for plot in plots] == [[], [], [], []]


def test_the_same_library_gives_the_same_report(library: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.html", tmp_path / "two.html"
    tasks.write_report(_run(library, shards=2), str(one))
    tasks.write_report(_run(library, shards=5), str(two))
    assert one.read_bytes() == two.read_bytes()


def test_names_from_the_audited_code_are_escaped(library: Path, tmp_path: Path) -> None:
    findings = _run(library)
    findings["packages"][0]["package"] = "<script>"
    findings["complexity"]["points"][0][0] = "<b>&"
    findings["imports"]["hot_spots"][0]["package"] = "<i>&"
    target = tmp_path / "report.html"
    tasks.write_report(findings, str(target))
    page = target.read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_a_library_without_functions_has_a_report_too(tmp_path: Path) -> None:
    findings = _run(_write(tmp_path / "library", {"a.py": "x = 1\n"}))
    tasks.write_report(findings, str(tmp_path / "report.html"))
    assert "No functions." in (tmp_path / "report.html").read_text(encoding="utf-8")

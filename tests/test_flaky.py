"""What continuous integration makes of a test that fails, and passes when it is run again."""

from __future__ import annotations

import re

import pytest

from tests.flaky import known_names
from tests.servers import ROOT

pytest_plugins = ["pytester"]

# Fails at its first run, or at those that are named, over all runs in all processes.
_TESTS = """
import pathlib, pytest

def run(name, *failing):
    path = pathlib.Path(name)
    number = len(path.read_text()) if path.exists() else 0
    path.write_text("." * (number + 1))
    assert number not in failing, f"{name} at its run {number}"
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder of tests with the plugin."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest("from tests.flaky import pytest_addoption, pytest_configure, pytest_generate_tests")
    pytester.makepyfile(runs=_TESTS)
    pytester.makepyfile(test_them="from runs import run\ndef test_sound(): pass\ndef test_racy(): run('racy', 0)\n")
    pytester.syspathinsert()
    return pytester


def _run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    options = ("--rerun-failed=told.txt", "--known-flaky=known.txt", "-p", "no:cacheprovider", *arguments)
    return suite.runpytest_inprocess(*options)


def _runs(suite: pytest.Pytester, name: str = "racy") -> int:
    return len((suite.path / name).read_text())


def test_one_that_passes_three_times_afterwards_is_forgiven_and_told(suite: pytest.Pytester) -> None:
    result = _run(suite)
    assert result.ret == 0
    assert result.parseoutcomes() == {"passed": 1, "flaky": 1}
    assert _runs(suite) == 4
    result.stdout.fnmatch_lines(["*FLAKY*", "*racy at its run 0*", "*Add this line*", "test_them.py::test_racy"])
    assert known_names(suite.path / "told.txt") == {"test_them.py::test_racy"}


@pytest.mark.parametrize("failing", [1, 3])
def test_one_that_fails_once_more_is_red_with_its_first_failure(suite: pytest.Pytester, failing: int) -> None:
    suite.makepyfile(test_them=f"from runs import run\ndef test_racy(): run('racy', 0, {failing})\n")
    result = _run(suite)
    assert result.ret == 1
    assert result.parseoutcomes() == {"failed": 1}
    assert _runs(suite) == failing + 1
    result.stdout.fnmatch_lines(["*racy at its run 0*"])
    assert not (suite.path / "told.txt").exists()


def test_a_second_one_in_the_same_run_is_red(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_more="from runs import run\ndef test_other(): run('other', 0)\n")
    result = _run(suite)
    assert result.ret == 1
    assert result.parseoutcomes() == {"passed": 1, "flaky": 1, "failed": 1}


def test_a_second_one_is_red_in_a_later_command_of_the_same_run(suite: pytest.Pytester) -> None:
    assert _run(suite).ret == 0
    suite.makepyfile(test_more="from runs import run\ndef test_other(): run('other', 0)\n")
    assert _run(suite, "test_more.py").ret == 1


def test_a_name_that_is_known_is_red_and_not_run_again(suite: pytest.Pytester) -> None:
    (suite.path / "known.txt").write_text("# races\n\ntest_them.py::test_racy\n")
    result = _run(suite)
    assert result.ret == 1
    assert _runs(suite) == 1


@pytest.mark.parametrize("folder", ["races", "faults", "model", "isolation"])
def test_what_is_found_by_chance_is_never_run_again(suite: pytest.Pytester, folder: str) -> None:
    (suite.path / folder).mkdir()
    (suite.path / "test_them.py").rename(suite.path / folder / "test_them.py")
    result = _run(suite)
    assert result.ret == 1
    assert _runs(suite) == 1


def test_a_setup_that_failed_is_made_again(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_them="""
        import pytest
        from runs import run
        @pytest.fixture
        def racy(): run("racy", 0)
        def test_it(racy): pass
        """
    )
    result = _run(suite)
    assert (result.ret, result.parseoutcomes()) == (0, {"flaky": 1})


def test_without_the_option_nothing_is_run_again(suite: pytest.Pytester) -> None:
    result = suite.runpytest_inprocess("-p", "no:cacheprovider")
    assert (result.ret, _runs(suite)) == (1, 1)


def test_a_test_can_be_run_any_number_of_times(suite: pytest.Pytester) -> None:
    result = suite.runpytest_inprocess("-p", "no:cacheprovider", "--times=5", "test_them.py::test_racy")
    assert result.parseoutcomes() == {"passed": 4, "failed": 1}


@pytest.mark.integration
def test_with_processes_too_one_is_forgiven_and_the_second_is_red(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_more="from runs import run\ndef test_other(): run('other', 0)\n")
    arguments = ("--rerun-failed=told.txt", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider")
    result = suite.runpytest_subprocess(*arguments)
    assert result.ret == 1
    assert result.parseoutcomes() == {"passed": 1, "flaky": 1, "failed": 1}
    (suite.path / "told.txt").unlink()
    (suite.path / "racy").unlink()
    result = suite.runpytest_subprocess(*arguments)
    assert result.ret == 0
    assert result.parseoutcomes() == {"passed": 2, "flaky": 1}


def test_every_known_name_is_that_of_a_test() -> None:
    for name in known_names():
        path, _, function = re.sub(r"\[.*", "", name).partition("::")
        assert f"def {function.rpartition('::')[2]}(" in (ROOT / path).read_text(), name

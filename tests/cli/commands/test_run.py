from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import RUN, change, run_document, step_document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.cli.conftest import FakeClient

URL = ("--database-url", "sqlite://")


def _ends(client: FakeClient, state: str, error: str | None = None) -> None:
    client.run = run_document(state, [step_document("pack", state, error=error)])
    client.changes = [change(1, "executing"), change(2, state, "pack"), change(3, state)]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("target", ["order.yaml", "clishop.workflows:order"])
def test_run_enqueues_follows_and_reports(client: FakeClient, cli: Callable[..., Result], target: str) -> None:
    _ends(client, "completed")
    result = cli(*URL, "run", target, "--input", '{"n": 1}', "--idempotency-key", "k1")
    assert result.exit_code == 0
    assert client.calls == [("enqueue", "order", {"n": 1}, "k1")]
    assert "pack" in result.stdout
    assert "✓ completed in" in result.stdout
    assert RUN in result.stderr


@pytest.mark.usefixtures("package")
def test_a_failed_run_shows_the_error_of_the_step(client: FakeClient, cli: Callable[..., Result]) -> None:
    _ends(client, "failed", "Traceback…\nValueError: no box")
    result = cli(*URL, "run", "order.yaml")
    assert result.exit_code == 1
    assert "pack: ValueError: no box" in result.stdout
    assert f"interlock history {RUN}" in result.stderr


@pytest.mark.usefixtures("package")
def test_run_for_programs_prints_one_document(client: FakeClient, cli: Callable[..., Result]) -> None:
    _ends(client, "completed")
    result = cli(*URL, "--json", "run", "order.yaml")
    assert json.loads(result.stdout) == client.run
    assert result.stderr == ""


@pytest.mark.usefixtures("client", "package")
def test_detached_it_prints_the_id_alone(cli: Callable[..., Result]) -> None:
    result = cli(*URL, "run", "order.yaml", "--detach")
    assert (result.exit_code, result.stdout) == (0, f"{RUN}\n")
    assert json.loads(cli(*URL, "run", "order.yaml", "--detach", "--json").stdout) == {"run_id": RUN}


@pytest.mark.usefixtures("package")
def test_ctrl_c_leaves_the_run_and_says_what_to_type(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.changes, client.interrupt_watch = [change(1, "executing")], True
    result = cli(*URL, "run", "order.yaml")
    assert result.exit_code == 130
    assert f"interlock cancel {RUN}" in result.stderr
    assert [verb for verb, *_ in client.calls] == ["enqueue"]


@pytest.mark.usefixtures("client", "package")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gone.yaml",), "No such file"),
        (("order",), "neither a file nor module:workflow"),
        (("clishop.gone:order",), "No module named 'clishop.gone'"),
        (("clishop.workflows:gone",), "does not exist"),
        (("clishop.workflows:Step",), "a Workflow is needed"),
        (("order.yaml", "--input", "{nope"), "not JSON"),
        (("order.yaml", "--input", "@gone.json"), "No such file"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(cli: Callable[..., Result], words: tuple[str, ...], said: str) -> None:
    result = cli(*URL, "run", *words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("where", ["file", "standard input"])
def test_input_is_read_from(client: FakeClient, cli: Callable[..., Result], tmp_path: Path, where: str) -> None:
    _ends(client, "completed")
    (tmp_path / "in.json").write_text('["a"]', encoding="utf-8")
    cli(*URL, "run", "order.yaml", "--input", "@in.json" if where == "file" else "@-", input='["a"]')
    assert client.calls[0][2] == ["a"]


@pytest.mark.usefixtures("client", "package")
def test_a_file_alone_does_not_say_which_app_has_its_tasks(cli: Callable[..., Result]) -> None:
    result = cli("run", "order.yaml")
    assert result.exit_code == 2
    assert "-A module:app" in result.stderr


@pytest.mark.usefixtures("client", "package")
def test_nothing_is_detached_from_a_server_that_would_stop_at_once(cli: Callable[..., Result]) -> None:
    result = cli("run", "clishop.workflows:order", "--detach")
    assert result.exit_code == 2
    assert "interlock dev" in result.stderr

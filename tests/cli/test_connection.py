"""Which server a command goes to, and how a data folder tells of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery import Celery

from interlock.cli.connection import Target, find_record, find_target, open_client
from interlock.cli.dev.server_state import DATABASE, ServerState
from interlock.cli.failures import NoServer
from interlock.cli.options import Options
from tests.cli.conftest import STATE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result


def _app(**configuration: str) -> Celery:
    app = Celery("shop", set_as_current=False)
    app.conf.update(configuration)
    return app


@pytest.mark.usefixtures("running")
def test_addresses_that_are_given_win(data_dir: Path) -> None:
    options = Options(database_url="sqlite:///given.db", data=str(data_dir))
    target = find_target(options)
    assert target is not None
    assert (target.database_url, target.embedded) == ("sqlite:///given.db", False)


@pytest.mark.usefixtures("running")
def test_an_app_with_a_database_is_believed_before_a_running_server(data_dir: Path) -> None:
    app = _app(interlock_database_url="sqlite:///production.db")
    target = find_target(Options(application=app, data=str(data_dir)))
    assert target is not None
    assert (target.app, target.database_url, target.is_meant) == (app, None, True)


@pytest.mark.usefixtures("running")
def test_a_running_server_is_taken_where_nothing_else_is_said(data_dir: Path) -> None:
    target = find_target(Options(data=str(data_dir)))
    assert target is not None
    assert (target.database_url, target.broker_url, target.embedded) == (STATE.database_url, STATE.broker_url, True)


@pytest.mark.usefixtures("running")
def test_an_app_without_addresses_is_pointed_at_the_running_server(data_dir: Path) -> None:
    app = _app()
    target = find_target(Options(application=app, data=str(data_dir)))
    assert target is not None
    assert target.embedded
    assert app.conf.broker_url == STATE.broker_url


@pytest.mark.usefixtures("running")
def test_another_app_with_a_broker_keeps_it(data_dir: Path) -> None:
    app = _app(broker_url="redis://production/0")
    target = find_target(Options(application=app, data=str(data_dir)))
    assert target is not None
    assert (target.app, target.broker_url, target.embedded, target.is_meant) == (app, None, False, False)
    assert app.conf.broker_url == "redis://production/0"


def test_a_stopped_server_leaves_its_record(data_dir: Path) -> None:
    options = Options(data=str(data_dir))
    assert find_record(options) is None
    data_dir.mkdir()
    (data_dir / DATABASE).touch()
    record = find_record(options)
    assert record is not None
    assert record.database_url == f"sqlite:///{data_dir / DATABASE}"
    assert find_target(options) is None


def test_where_there_is_nothing_the_error_says_what_to_start(data_dir: Path) -> None:
    with pytest.raises(NoServer, match="interlock dev -A"):
        open_client(Options(data=str(data_dir)), None)


@pytest.mark.usefixtures("client")
def test_without_any_server_a_command_says_what_to_do(
    cli: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("interlock.cli.connection.open_client", open_client)
    result = cli("list")
    assert result.exit_code == 2
    assert "interlock dev -A module:app" in result.stderr


def test_what_holds_addresses_does_not_show_them() -> None:
    """They have passwords, and a repr ends up in somebody's log."""
    urls = dict.fromkeys(("database_url", "broker_url", "redis_url"), "redis://:s3cr3t@cache/0")
    for holder in (Options(**urls), Target(**urls), ServerState(1, "shop:app", *urls.values(), "2026-01-31T08:00:00")):
        assert "s3cr3t" not in repr(holder)

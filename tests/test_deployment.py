"""celeryconfig.py and docker-compose.yml: what production starts from."""

from __future__ import annotations

import re
import runpy
from typing import Any

import pytest
import yaml

from tests.servers import ROOT

_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:[?-])?")
_LITERAL_IN_URL = re.compile(r"://[^\s/@$]*:(?!\$\{)[^\s/@]+@")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "BROKER_URL", "REDIS_URL", "IMPORTS"):
        monkeypatch.delenv(f"INTERLOCK_{name}", raising=False)


def _settings() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "celeryconfig.py"))


def test_the_environment_names_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_DATABASE_URL", "sqlite:///x.db")
    monkeypatch.setenv("INTERLOCK_BROKER_URL", "redis://broker")
    monkeypatch.setenv("INTERLOCK_REDIS_URL", "redis://events")
    monkeypatch.setenv("INTERLOCK_IMPORTS", "shop.tasks, shop.more")
    settings = _settings()
    assert settings["interlock_database_url"] == "sqlite:///x.db"
    assert settings["broker_url"] == "redis://broker"
    assert settings["interlock_redis_url"] == "redis://events"
    assert settings["imports"] == ["shop.tasks", "shop.more"]


def test_what_the_environment_does_not_name_keeps_its_default() -> None:
    absent = {"interlock_database_url", "interlock_redis_url", "broker_url", "imports"}
    assert not absent & _settings().keys()


def test_messages_to_rabbitmq_are_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_BROKER_URL", "amqp://broker")
    assert _settings()["broker_transport_options"] == {"confirm_publish": True}


def test_nothing_but_json_is_accepted_and_no_result_backend_is_used() -> None:
    settings = _settings()
    assert settings["accept_content"] == settings["result_accept_content"] == ["json"]
    assert settings["task_serializer"] == settings["result_serializer"] == "json"
    assert settings["result_backend"] is None


def test_compose_starts_workers_after_the_migration() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services["migrate"]["command"] == ["interlock", "db", "upgrade"]
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    conditions = {name: on["condition"] for name, on in services["workers"]["depends_on"].items()}
    assert conditions == {"migrate": "service_completed_successfully", "redis": "service_healthy"}
    assert services["workers"]["environment"]["INTERLOCK_DATABASE_URL"]


def test_compose_refuses_to_start_without_passwords() -> None:
    markers = dict(_VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))
    required = {name for name, marker in markers.items() if marker == ":?"}
    assert required == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert "" not in markers.values()


def test_compose_holds_no_password() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = [
        value
        for service in yaml.safe_load(text)["services"].values()
        for name, value in service.get("environment", {}).items()
        if name.endswith(("PASSWORD", "AUTH"))
    ]
    assert len(secrets) == 2
    assert all(_VARIABLE.match(value) for value in secrets)
    assert not _LITERAL_IN_URL.search(text)
    assert _LITERAL_IN_URL.search("redis://:secret@redis:6379/0")


def test_the_example_environment_names_each_variable_of_compose_and_no_password() -> None:
    text = (ROOT / ".env.example").read_text()
    named = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    compose = {name for name, _ in _VARIABLE.findall((ROOT / "docker-compose.yml").read_text())}
    assert named.keys() == compose
    assert named["POSTGRES_PASSWORD"] == named["REDIS_PASSWORD"] == ""

"""A deployment in which all is well, as facts, and how single facts of it are changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from celery import Celery

from interlock.cli.doctor.ask_app import configuration
from interlock.cli.doctor.facts import (
    THIS_APP,
    AppFacts,
    BrokerFacts,
    DatabaseFacts,
    EngineFacts,
    Facts,
    RedisFacts,
    WorkerFacts,
)
from interlock.core.queries.database_health import Backlog, Server, Work
from interlock.core.settings import Settings

WORKER = "celery@one"
REDIS = RedisFacts(policy="noeviction", limit_bytes=1000, used_bytes=100, is_replica=False)
BACKLOG = Backlog(task="shop.pack", queue=None, steps=3, queued=1, timeout_s=20.0)
POSTGRES = Server(
    dialect="postgresql",
    skew_s=0.01,
    doubt_s=0.005,
    settings={
        "default_transaction_read_only": "off",
        "fsync": "on",
        "full_page_writes": "on",
        "idle_in_transaction_session_timeout": "0",
        "max_connections": "100",
        "statement_timeout": "0",
        "superuser_reserved_connections": "3",
        "synchronous_commit": "on",
        "transaction_timeout": "0",
    },
)
SQLITE = DatabaseFacts(
    server=Server(dialect="sqlite", skew_s=0.0, doubt_s=0.001), path="/var/interlock.db", filesystem="ext4"
)


def celery_settings(**changes: Any) -> dict[str, Any]:
    """Celery's settings as `celeryconfig.py` recommends them, with these changed."""
    app = Celery("sound", set_as_current=False)
    app.config_from_object("celeryconfig")
    return {**app.conf.table(with_defaults=True), "broker_transport_options": {"confirm_publish": True}, **changes}


SOUND = Facts(
    settings=Settings(),
    hostname="one",
    app=AppFacts(is_installed=True, import_path="shop:app"),
    configurations=(configuration(THIS_APP, celery_settings()), configuration(WORKER, celery_settings())),
    database_or_away=DatabaseFacts(server=POSTGRES),
    work_or_away=Work(executing=1, backlogs=(BACKLOG,), overdue_s=0.0),
    broker_or_away=BrokerFacts(
        transport="redis", is_local=True, lengths={"packing": 1}, consumers={"packing": (WORKER,)}
    ),
    broker_redis_or_away=REDIS,
    events_or_away=REDIS,
    workers_or_away=(
        WorkerFacts(
            name=WORKER,
            pool="celery.concurrency.prefork",
            processes=2,
            tasks=frozenset({"shop.pack"}),
            has_interlock=True,
            skew_s=0.0,
        ),
    ),
    engine_or_away=EngineFacts(),
    queue_of={"shop.pack": "packing"},
)


def with_celery(where: str = WORKER, **settings: Any) -> Facts:
    """The sound deployment, with Celery's settings changed in one process."""
    changed = [
        configuration(each.where, {**each.celery, **settings}) if each.where == where else each
        for each in SOUND.configurations
    ]
    return replace(SOUND, configurations=tuple(changed))


def with_settings(**settings: Any) -> Facts:
    """The sound deployment, with Interlock's settings changed here."""
    return replace(SOUND, settings=SOUND.settings.model_copy(update=settings))


def with_server(facts: Facts = SOUND, **changes: Any) -> Facts:
    """With another server of the database: PostgreSQL's settings are those that are lower-case names of its own."""
    settings = {name: str(value) for name, value in changes.items() if name in POSTGRES.settings}
    others = {name: value for name, value in changes.items() if name not in settings}
    server = replace(facts.database.server, settings={**facts.database.server.settings, **settings}, **others)
    return replace(facts, database_or_away=replace(facts.database, server=server))


def with_worker(**changes: Any) -> Facts:
    """With a worker that differs."""
    return replace(SOUND, workers_or_away=(replace(SOUND.workers[0], **changes),))


def with_demand(facts: Facts = SOUND, **changes: Any) -> Facts:
    """With other steps that are planned."""
    return replace(facts, work_or_away=replace(facts.work, backlogs=(replace(BACKLOG, **changes),)))


def with_broker(facts: Facts = SOUND, **changes: Any) -> Facts:
    """With another broker."""
    return replace(facts, broker_or_away=replace(facts.broker, **changes))


def with_redis(**changes: Any) -> Facts:
    """With a broker whose Redis is set otherwise."""
    return replace(SOUND, broker_redis_or_away=replace(REDIS, **changes))


def with_sqlite(**changes: Any) -> Facts:
    """On SQLite."""
    return replace(SOUND, database_or_away=replace(SQLITE, **changes))

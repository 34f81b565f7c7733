"""Every check: what makes it speak, how loudly, and that it is silent where all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.cli.doctor.checks import CHECKS
from interlock.cli.doctor.facts import Away, EngineFacts, Facts
from interlock.cli.doctor.findings import Finding, Severity
from tests.cli.doctor.sound import (
    SOUND,
    with_broker,
    with_celery,
    with_demand,
    with_redis,
    with_server,
    with_settings,
    with_sqlite,
    with_worker,
)

E, W, U, OK = Severity.ERROR, Severity.WARNING, Severity.UNKNOWN, Severity.OK

RABBIT = with_broker(transport="amqp")
LATE = with_celery(task_acks_late=True)
APP = SOUND.known_app

# Check → what is wrong, how bad it is, and words of what is said.
SPEAKS: dict[str, list[tuple[Facts, Severity, str]]] = {
    "database": [(replace(SOUND, database_or_away=Away("it is down")), E, "it is down")],
    "migrated": [
        (replace(SOUND, database_or_away=replace(SOUND.database, revision_fault="has no tables")), E, "has no tables"),
        (replace(SOUND, database_or_away=replace(SOUND.database, newer="0009")), W, "0009"),
    ],
    "durable": [
        (with_server(fsync="off"), E, "`fsync`"),
        (with_server(full_page_writes="off"), E, "`full_page_writes`"),
        (with_server(synchronous_commit="off"), E, "`synchronous_commit`"),
    ],
    "writable": [
        (with_server(is_standby=True), E, "standby"),
        (with_server(default_transaction_read_only="on"), E, "`default_transaction_read_only`"),
    ],
    "database_timeouts": [
        (with_server(statement_timeout=5_000), W, "`statement_timeout` is 5 s"),
        (with_server(transaction_timeout=29_999), W, "`transaction_timeout`"),
        (with_server(idle_in_transaction_session_timeout=1_000), W, "`idle_in_transaction_session_timeout` is 1 s"),
    ],
    "connections": [(with_server(with_worker(processes=94)), W, "need about 98 connections, and there are 97")],
    "clock_skew": [
        (with_server(with_worker(skew_s=5.0), skew_s=5.0), W, "5.0 s before this machine's"),
        (with_server(with_worker(skew_s=-400.0), skew_s=-400.0), E, "400.0 s behind this machine's"),
        (with_worker(skew_s=-30.0), W, "celery@one is 30.0 s behind the database's"),
        (with_worker(skew_s=3600.0), E, "celery@one is 3600.0 s before the database's"),
    ],
    "sqlite_file": [
        (with_sqlite(path=None), E, "in memory"),
        (with_sqlite(filesystem="nfs4"), E, "network file system (nfs4)"),
        (with_sqlite(is_relative=True), W, "relative"),
    ],
    "sqlite_machines": [
        (with_broker(with_sqlite(), is_local=False), W, "can be reached from other machines"),
        (replace(with_sqlite(), hostname="two"), E, "celery@one"),
    ],
    "broker": [(replace(SOUND, broker_or_away=Away("connection refused")), E, "connection refused")],
    "broker_kind": [
        (with_broker(transport="memory"), E, "memory://"),
        (with_broker(transport="sqs"), W, "sqs://"),
    ],
    "redis_eviction": [
        (with_redis(policy="allkeys-lru"), E, "allkeys-lru"),
        (with_redis(policy="allkeys-lru", limit_bytes=0), W, "no limit of memory is set yet"),
        (with_redis(policy="volatile-ttl"), W, "volatile-ttl"),
    ],
    "redis_memory": [(with_redis(used_bytes=901), W, "901 of 1,000 bytes")],
    "redis_replica": [(with_redis(is_replica=True), E, "replica")],
    "events": [(replace(SOUND, events_or_away=Away("no route")), W, "no route")],
    "workers": [
        (replace(SOUND, workers_or_away=()), E, "no worker answered"),
        (replace(SOUND, workers_or_away=(), work_or_away=replace(SOUND.work, executing=0)), W, "no work for one"),
    ],
    "engine": [(replace(SOUND, engine_or_away=EngineFacts(fault="no engine answered")), E, "no engine answered")],
    "overdue": [
        (replace(SOUND, work_or_away=replace(SOUND.work, overdue_s=31.0)), E, "for 31 s"),
        (replace(with_settings(sweep_s=60.0), work_or_away=replace(SOUND.work, overdue_s=361.0)), E, "for 361 s"),
    ],
    "consumers": [
        (with_demand(queue="other"), E, "no worker that answered consumes queue other: 1 steps wait in it"),
        (with_demand(queue="other", queued=0), W, "3 steps will go to it"),
    ],
    "known_tasks": [(with_demand(task="shop.unknown", queue="packing"), E, "does not know shop.unknown")],
    "pool": [(with_worker(pool="celery.concurrency.gevent"), W, "celery@one (gevent)")],
    "lease": [
        (with_settings(lease_s=20.0), W, "2.0 heartbeats"),
        (with_settings(lease_s=15.0), E, "1.5 heartbeats"),
        (with_settings(sweep_s=31.0), W, "a sweep every 31 s"),
        (with_celery(interlock_lease_s=5), E, "(celery@one)"),
    ],
    "redispatch": [
        (with_settings(redispatch_s=1.0), W, "repeated after 1 s, swept every 5 s"),
        (with_settings(redispatch_max_s=10.0), W, "at most 10 s"),
    ],
    "channel_prefix": [(with_celery(interlock_channel_prefix="other"), E, "'other' in celery@one")],
    "installed": [
        (replace(SOUND, app=replace(APP, is_installed=False)), E, "`install(app)` was not called"),
        (with_worker(has_interlock=False), E, "celery@one"),
    ],
    "engine_app": [(replace(SOUND, app=replace(APP, import_path=None)), E, "in no module")],
    "guards_file": [
        (replace(with_settings(guards_file="g.yaml"), app=replace(APP, guards_fault="line 3: no")), E, "line 3: no")
    ],
    "result_backend": [
        (with_celery(result_backend="redis://x", task_ignore_result=False), W, "`task_ignore_result` is off"),
        (with_celery(result_backend="redis://x", task_store_errors_even_if_ignored=True), W, "_even_if_ignored` is on"),
    ],
    "deduplication": [
        (with_celery(worker_deduplicate_successful_tasks=True, task_acks_late=True), E, "is on (celery@one)"),
        (with_celery(worker_deduplicate_successful_tasks=True), W, "is on (celery@one)"),
    ],
    "always_eager": [(with_celery(task_always_eager=True), E, "`task_always_eager` is on")],
    "task_protocol": [(with_celery(task_protocol=1), W, "`task_protocol` is 1")],
    "json_accepted": [(with_celery(accept_content=["pickle"]), E, "has no 'json'")],
    "pickle_accepted": [
        (with_celery(accept_content=["json", "pickle"]), W, "has 'pickle'"),
        (with_celery(accept_content=["application/json", "application/x-python-serialize"]), W, "has 'pickle'"),
    ],
    "late_rejection": [
        (with_celery(task_acks_late=True, task_reject_on_worker_lost=True), W, "(celery@one)"),
        (replace(SOUND, app=replace(APP, requeued_tasks=("shop.pack",))), W, "on for shop.pack"),
    ],
    "connection_loss": [
        (with_celery(worker_cancel_long_running_tasks_on_connection_loss=True, task_acks_late=True), W, "is on"),
        (
            replace(
                with_celery(worker_cancel_long_running_tasks_on_connection_loss=True),
                app=replace(APP, late_tasks=("shop.pack",)),
            ),
            W,
            "is on",
        ),
    ],
    "prefetch": [
        (with_celery(worker_prefetch_multiplier=4), W, "is not 1 (celery@one)"),
        (with_celery(worker_prefetch_multiplier=0), W, "is not 1 (celery@one)"),
    ],
    "remote_control": [(with_celery(worker_enable_remote_control=False), W, "`worker_enable_remote_control` is off")],
    "visibility_timeout": [
        (with_celery(broker_transport_options={"visibility_timeout": 20}), W, "shorter than 30 s, and a lease is 30 s"),
        (with_demand(timeout_s=7200.0), W, "shorter than 7200 s, and a step that is planned may take 7200 s"),
        (with_celery(broker_transport_options={"unacked_key": "interlock.control.unacked"}), E, "`unacked_key`"),
    ],
    "consumer_timeout": [
        (with_broker(with_demand(LATE, timeout_s=None), transport="amqp"), W, "have no time limit"),
        (with_broker(with_demand(LATE, timeout_s=3600.0), transport="amqp"), W, "may take 3600 s"),
    ],
    "publisher_confirms": [
        (with_broker(with_celery(broker_transport_options={}), transport="amqp"), W, "off (celery@one)")
    ],
}

# Check → something near to what makes it speak, and is well.
SILENT: dict[str, list[Facts]] = {
    "durable": [with_server(synchronous_commit="local")],
    "database_timeouts": [with_server(statement_timeout=30_000)],
    "connections": [
        with_server(with_worker(processes=93)),
        with_server(with_worker(processes=500, has_interlock=False)),
    ],
    "clock_skew": [with_server(skew_s=3.0, doubt_s=2.5), with_worker(skew_s=None)],
    "sqlite_file": [with_sqlite()],
    "sqlite_machines": [with_sqlite(), replace(with_sqlite(), hostname="one.example.org")],
    "broker_kind": [RABBIT],
    "redis_memory": [with_redis(used_bytes=10_000, limit_bytes=0)],
    "overdue": [replace(SOUND, work_or_away=replace(SOUND.work, overdue_s=29.0))],
    "known_tasks": [with_worker(tasks=None), with_demand(task="shop.unknown", queue=None)],
    "pool": [with_worker(pool=""), with_worker(pool="celery.concurrency.solo", has_interlock=False)],
    "result_backend": [
        with_celery(result_backend="redis://x", task_ignore_result=True),
        with_celery(result_backend="disabled://", task_ignore_result=False),
    ],
    "late_rejection": [with_celery(task_reject_on_worker_lost=True), LATE],
    "connection_loss": [with_celery(worker_cancel_long_running_tasks_on_connection_loss=True)],
    "visibility_timeout": [with_celery(broker_transport_options={"visibility_timeout": 30})],
    "consumer_timeout": [
        RABBIT,
        with_broker(with_demand(LATE, timeout_s=1800.0), transport="amqp"),
    ],
    "publisher_confirms": [RABBIT],
    "guards_file": [with_settings(guards_file="g.yaml")],
}

# Check → a part that did not answer, without which it cannot tell.
CANNOT_TELL: dict[str, Facts] = {
    "migrated": replace(SOUND, database_or_away=Away("down")),
    "broker": replace(SOUND, broker_or_away=Away("none is named", is_fault=False)),
    "database": replace(SOUND, database_or_away=Away("none is configured", is_fault=False)),
    "events": replace(SOUND, events_or_away=Away("none is configured", is_fault=False)),
    "redis_eviction": replace(SOUND, broker_redis_or_away=Away("down")),
    "workers": replace(SOUND, workers_or_away=Away("the broker did not answer")),
    "consumers": replace(SOUND, workers_or_away=()),
    "overdue": replace(SOUND, work_or_away=Away("no tables")),
    "engine": replace(SOUND, engine_or_away=Away("the broker did not answer")),
    "engine_app": replace(SOUND, app=None),
    "prefetch": replace(SOUND, app=None, configurations=()),
}

# Check → a deployment that has not what it asks about.
DOES_NOT_APPLY: dict[str, Facts] = {
    "durable": with_sqlite(),
    "sqlite_file": SOUND,
    "redis_eviction": replace(RABBIT, broker_redis_or_away=Away("no Redis", is_fault=False)),
    "visibility_timeout": RABBIT,
    "publisher_confirms": SOUND,
    "guards_file": SOUND,
}


def _findings(code: str, facts: Facts) -> list[Finding]:
    return list(CHECKS[code].findings(facts))


def test_in_a_sound_deployment_no_check_speaks() -> None:
    found = [finding for code in CHECKS for finding in _findings(code, SOUND)]
    assert {finding.severity for finding in found} == {OK}
    assert {finding.what for finding in found} <= {check.holds for check in CHECKS.values()}


@pytest.mark.parametrize(
    ("code", "case"), [(code, number) for code, cases in SPEAKS.items() for number in range(len(cases))]
)
def test_a_check_speaks_where_something_is_wrong(code: str, case: int) -> None:
    facts, severity, words = SPEAKS[code][case]
    (finding,) = _findings(code, facts)
    assert (finding.code, finding.severity) == (code, severity)
    assert words in finding.what
    assert finding.why
    assert finding.remedy


@pytest.mark.parametrize(
    ("code", "case"), [(code, number) for code, cases in SILENT.items() for number in range(len(cases))]
)
def test_a_check_is_silent_where_it_only_looks_alike(code: str, case: int) -> None:
    (finding,) = _findings(code, SILENT[code][case])
    assert (finding.severity, finding.what) == (OK, CHECKS[code].holds)


@pytest.mark.parametrize("code", CANNOT_TELL)
def test_a_check_says_that_it_cannot_tell(code: str) -> None:
    (finding,) = _findings(code, CANNOT_TELL[code])
    assert finding.severity is U
    assert not finding.why


@pytest.mark.parametrize("code", DOES_NOT_APPLY)
def test_a_check_says_nothing_of_what_is_not_there(code: str) -> None:
    assert _findings(code, DOES_NOT_APPLY[code]) == []


def test_every_check_has_a_case_in_which_it_speaks() -> None:
    assert set(SPEAKS) == set(CHECKS)


def test_every_check_is_heard_to_be_silent_somewhere() -> None:
    applies = {code for code in CHECKS if any(finding.severity is OK for finding in _findings(code, SOUND))}
    assert applies | set(SILENT) == set(CHECKS)


def test_parts_that_are_down_break_no_check() -> None:
    away = Away("down")
    facts = replace(
        SOUND,
        app=None,
        configurations=(),
        database_or_away=away,
        work_or_away=away,
        broker_or_away=away,
        broker_redis_or_away=away,
        events_or_away=away,
        workers_or_away=away,
        engine_or_away=away,
    )
    found = {finding.code: finding.severity for code in CHECKS for finding in _findings(code, facts)}
    assert {code for code, severity in found.items() if severity is E} == {"database", "broker"}
    assert set(found) == set(CHECKS) - {"guards_file"}

"""The database: whether it is there, keeps what it has confirmed, and tells the same time as everybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .facts import Away, listed
from .findings import DoesNotApply, Found, NotKnown, Severity
from .registry import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.queries.database_health import Server

    from .facts import Facts

_SKEW_WARNING_S: Final = 2.0
_SHORT_STATEMENT_MS: Final = 30_000
_SHORT_IDLE_MS: Final = 10_000
_PER_WORKER: Final = 4  # connections of MAIN's engine process: sweeper, heartbeat, commands, and one to spare
_NETWORK_FILESYSTEMS: Final = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "lustre", "gpfs")


def _server(facts: Facts, dialect: str) -> Server:
    server = facts.database.server
    if server.dialect != dialect:
        raise DoesNotApply
    return server


@check(
    "database",
    Severity.ERROR,
    holds="the database answers",
    why="without it no step is claimed and no result is recorded; workers wait for it, and go on when it is back.",
    remedy="start it, or correct `interlock_database_url`",
)
def database(facts: Facts) -> Iterator[str]:
    """Ask it anything."""
    away = facts.database_or_away
    if isinstance(away, Away) and away.is_fault:
        yield away.reason
    elif isinstance(away, Away):
        raise NotKnown(away.reason)


@check(
    "migrated",
    Severity.ERROR,
    holds="the tables are those of this version",
    why="an engine process does not start on tables that it does not know: nothing is swept, and no command is taken.",
    remedy="run `interlock db upgrade` before the workers start",
)
def migrated(facts: Facts) -> Iterator[Found | str]:
    """Compare the tables with those that this version needs."""
    if facts.database.revision_fault is not None:
        yield facts.database.revision_fault
    if facts.database.newer is not None:
        yield Found(
            f"the database is at revision {facts.database.newer}, newer than this version knows",
            Severity.WARNING,
            "upgrade this process soon",
        )


@check(
    "durable",
    Severity.ERROR,
    holds="what PostgreSQL confirms is on disk",
    why="after a crash of the machine, results that were confirmed are gone and their steps run again, while "
    "subscribers have seen changes that never were; with `fsync` or `full_page_writes` off the database itself "
    "may be damaged.",
    remedy="turn `fsync`, `full_page_writes` and `synchronous_commit` on, for the server, the database and the role",
)
def durable(facts: Facts) -> Iterator[str]:
    """Look at the three settings, as they hold for this role."""
    server = _server(facts, "postgresql")
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        if server.settings.get(name) == "off":
            yield f"`{name}` is off"


@check(
    "writable",
    Severity.ERROR,
    holds="the database can be written to",
    why="nothing can be claimed or recorded in a copy that only follows, or by a role that may only read.",
    remedy="name the primary server in `interlock_database_url`, and a role that may write",
)
def writable(facts: Facts) -> Iterator[str]:
    """Look for a standby server, and for a role that reads only."""
    server = _server(facts, "postgresql")
    if server.is_standby:
        yield "the server is a standby"
    if server.settings.get("default_transaction_read_only") == "on":
        yield "`default_transaction_read_only` is on"


@check(
    "database_timeouts",
    Severity.WARNING,
    holds="PostgreSQL lets long statements end",
    why="a cascade over thousands of steps, a sweep or `interlock verify` takes seconds; cut off, it is rolled "
    "back, and comes back as long as before.",
    remedy="set the timeout to 0, or to half a minute and more, for the role that Interlock uses",
)
def database_timeouts(facts: Facts) -> Iterator[str]:
    """Look for timeouts that are short for a sweep."""
    server = _server(facts, "postgresql")
    limits = {
        "statement_timeout": _SHORT_STATEMENT_MS,
        "transaction_timeout": _SHORT_STATEMENT_MS,
        "idle_in_transaction_session_timeout": _SHORT_IDLE_MS,
    }
    for name, enough_ms in limits.items():
        given_ms = int(server.settings.get(name, 0))
        if 0 < given_ms < enough_ms:
            yield f"`{name}` is {given_ms / 1000:g} s"


@check(
    "connections",
    Severity.WARNING,
    holds="PostgreSQL has connections enough for the workers that answered",
    why="a worker that gets no connection cannot claim or report; results wait in it, and steps run into their leases.",
    remedy="raise `max_connections`, or lower the concurrency; a pooler must pool by session",
)
def connections(facts: Facts) -> Iterator[str]:
    """Count one for each pool process, and a few for each engine."""
    server = _server(facts, "postgresql")
    needed = sum(worker.processes + _PER_WORKER for worker in facts.workers if worker.has_interlock)
    reserved = int(server.settings.get("superuser_reserved_connections", 0))
    there = int(server.settings.get("max_connections", 0)) - reserved
    if needed > there > 0:
        yield f"{len(facts.workers)} workers need about {needed} connections, and there are {there}"


@check(
    "clock_skew",
    Severity.WARNING,
    holds="this machine, the workers that answered and the database tell the same time",
    why="Interlock's timers are the database's, and do not mind. But a `start_at` and an `expires` are written by "
    "one clock and read by another, Celery throws away what it thinks has expired, and a signed command is "
    "refused when it seems too old.",
    remedy="let NTP set the clocks of all machines",
)
def clock_skew(facts: Facts) -> Iterator[Found | str]:
    """Compare with the database, less the time that the question took."""
    server = facts.database.server
    if (off := abs(server.skew_s) - server.doubt_s) > _SKEW_WARNING_S:
        text = f"the database's clock is {off:.1f} s {'before' if server.skew_s > 0 else 'behind'} this machine's"
        yield Found(text, _severity_of_skew(facts, off))
    try:
        workers = facts.workers
    except NotKnown:
        return
    for worker in workers:
        skew_s = 0.0 if worker.skew_s is None else worker.skew_s - server.skew_s
        if (off := abs(skew_s) - server.doubt_s) > _SKEW_WARNING_S:
            text = f"the clock of {worker.name} is {off:.1f} s {'before' if skew_s > 0 else 'behind'} the database's"
            yield Found(text, _severity_of_skew(facts, off))


@check(
    "sqlite_file",
    Severity.ERROR,
    holds="the SQLite file is one and the same for every process, on a local disk",
    why="SQLite's locks do not hold on network file systems, and the file is damaged; a database in memory is "
    "another one in each process; and so is a relative path in each folder in which a process starts.",
    remedy="name a file on a local disk by its absolute path (`sqlite:////var/lib/interlock/interlock.db`), or use "
    "PostgreSQL",
)
def sqlite_file(facts: Facts) -> Iterator[Found | str]:
    """Look where the file is."""
    _server(facts, "sqlite")
    if facts.database.path is None:
        yield "the database is in memory"
    elif facts.database.filesystem.startswith(_NETWORK_FILESYSTEMS):
        yield f"{facts.database.path} is on a network file system ({facts.database.filesystem})"
    if facts.database.is_relative:
        yield Found("`interlock_database_url` names a file relative to the working folder", Severity.WARNING)


@check(
    "sqlite_machines",
    Severity.WARNING,
    holds="SQLite serves one machine",
    why="a worker on another machine has another file: it takes messages of steps that it does not know, and drops "
    "them.",
    remedy="use PostgreSQL for more than one machine; else let the broker listen on 127.0.0.1 alone",
)
def sqlite_machines(facts: Facts) -> Iterator[Found | str]:
    """Look for workers on other machines, or a broker that they could reach."""
    _server(facts, "sqlite")
    if not isinstance(facts.workers_or_away, Away):
        names = ("localhost", facts.hostname, facts.hostname.partition(".")[0])
        others = [worker.name for worker in facts.workers if worker.has_interlock and worker.host not in names]
        if others:
            yield Found(f"workers of other machines answered: {listed(others)}", Severity.ERROR)
    if not facts.broker.is_local:
        yield "the broker can be reached from other machines"


def _severity_of_skew(facts: Facts, off_s: float) -> Severity:
    return Severity.ERROR if off_s > facts.settings.signature_window_s / 2 else Severity.WARNING

"""Interlock's own settings: times that do not fit each other, and what an engine process needs to start."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from .facts import THIS_APP, listed
from .findings import DoesNotApply, Found, Severity
from .registry import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.settings import Settings

    from .facts import Facts

_BEATS_AT_LEAST = 2
_BEATS_ENOUGH = 3


def _each(facts: Facts) -> Iterator[tuple[str, Settings]]:
    """The settings that hold somewhere: here, the environment included, and as each worker that told them is configured."""
    yield "here", facts.settings
    for configuration in facts.configurations:
        if configuration.interlock is not None and configuration.where != THIS_APP:
            yield configuration.where, configuration.interlock


@check(
    "lease",
    Severity.WARNING,
    holds="a lease is several heartbeats long, and sweeps are no rarer",
    why="a worker that is only slow loses its claims when few heartbeats fit into a lease: the step runs a second "
    "time, and the first result is thrown away. A sweep that is rarer than a lease finds dead workers late.",
    remedy="set `interlock_lease_s` to at least three times `interlock_heartbeat_s`, and `interlock_sweep_s` below "
    "it, in every process alike",
)
def lease(facts: Facts) -> Iterator[Found | str]:
    """Compare lease, heartbeat and sweep."""
    for where, settings in _each(facts):
        beats = settings.lease_s / settings.heartbeat_s
        if beats < _BEATS_ENOUGH:
            severity = Severity.ERROR if beats < _BEATS_AT_LEAST else Severity.WARNING
            lasts = f"a lease of {settings.lease_s:g} s with a heartbeat every {settings.heartbeat_s:g} s"
            yield Found(f"{lasts} ({where}): {beats:.1f} heartbeats", severity)
        if settings.sweep_s > settings.lease_s:
            yield f"a sweep every {settings.sweep_s:g} s, and a lease of {settings.lease_s:g} s ({where})"


@check(
    "redispatch",
    Severity.WARNING,
    holds="a message is repeated no sooner than it can have been lost",
    why="a message that only waits its turn is sent again and again, and a long queue becomes longer; no step is "
    "lost or doubled.",
    remedy="leave `interlock_redispatch_s` (30) well above `interlock_sweep_s`, and `interlock_redispatch_max_s` "
    "above it",
)
def redispatch(facts: Facts) -> Iterator[str]:
    """Compare the times between two messages of one attempt."""
    for where, settings in _each(facts):
        if settings.redispatch_s < settings.sweep_s:
            yield f"repeated after {settings.redispatch_s:g} s, swept every {settings.sweep_s:g} s ({where})"
        if settings.redispatch_max_s < settings.redispatch_s:
            yield f"repeated after {settings.redispatch_s:g} s, at most {settings.redispatch_max_s:g} s ({where})"


@check(
    "channel_prefix",
    Severity.ERROR,
    holds="everybody who told has the same channel prefix",
    why="commands and events go by `interlock_channel_prefix`: a worker with another one never gets a pause or "
    "a cancel.",
    remedy="give every process of a deployment the same `interlock_channel_prefix`, and another one to each other "
    "deployment on that broker",
)
def channel_prefix(facts: Facts) -> Iterator[str]:
    """Compare the configurations, of the app and of the workers; what the environment of each adds is not known."""
    names: dict[str, list[str]] = defaultdict(list)
    for configuration in facts.known_configurations:
        if configuration.interlock is not None:
            names[configuration.interlock.channel_prefix].append(configuration.where)
    if len(names) > 1:
        told = "; ".join(f"{prefix!r} in {listed(where)}" for prefix, where in names.items())
        yield f"`interlock_channel_prefix` is {told}"


@check(
    "installed",
    Severity.ERROR,
    holds="Interlock is installed in the app and in the workers that answered",
    why="a worker whose app has no `install(app)` takes the message of a step for a plain task: nobody claims the "
    "step, its result is thrown away, and its body runs again at every repetition.",
    remedy="call `interlock.install(app)` where the app is made, and start the workers again",
)
def installed(facts: Facts) -> Iterator[str]:
    """Ask whether `install` was called, here and there."""
    if facts.app is not None and not facts.app.is_installed:
        yield "`install(app)` was not called for this app"
    without = [worker.name for worker in facts.workers if not worker.has_interlock]
    if without:
        yield f"a worker without Interlock: {listed(without)}"


@check(
    "engine_app",
    Severity.ERROR,
    holds="an engine process can import the app",
    why="each worker starts its engine as a process of its own, which imports the app by name. Without a name "
    "there is no engine: nothing is swept, and no command is taken.",
    remedy="set `interlock_app` to 'package.module:attribute'",
)
def engine_app(facts: Facts) -> Iterator[str]:
    """Find the app's import path as a worker would."""
    if facts.known_app.import_path is None:
        yield "the app is in no module under a name of its own"


@check(
    "guards_file",
    Severity.ERROR,
    holds="the guards file can be used",
    why="a process that cannot read it moves no workflow at all.",
    remedy="mend the file that `interlock_guards_file` names, or the path; docs/guards.md has the format",
)
def guards_file(facts: Facts) -> Iterator[str]:
    """Load it."""
    if facts.settings.guards_file is None:
        raise DoesNotApply
    if facts.known_app.guards_fault is not None:
        yield facts.known_app.guards_fault

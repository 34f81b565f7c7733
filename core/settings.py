"""Every setting, its default and its name.

A setting `lease_s` is `interlock_lease_s` in Celery's configuration and `INTERLOCK_LEASE_S` in the environment; the
environment wins, so that one image can be deployed in several places.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Settings"]

_CELERY_PREFIX = "interlock_"
_ENVIRONMENT_PREFIX = "INTERLOCK_"


class Settings(BaseModel):
    """Names, addresses, limits and times. Times are in seconds, sizes in bytes of JSON text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    database_url: str | None = None
    """SQLAlchemy URL of the database; needed by workers, optional for clients."""
    redis_url: str | None = None
    """Redis for events; the broker's, when the broker is Redis and this is not set."""
    app: str | None = None
    """Import path (`package.module:attribute`) of the Celery app, where it cannot be found by itself."""
    guards_file: str | None = None
    """YAML file that attaches guards to edges (docs/guards.md); every process that moves workflows needs it."""
    check_tasks: bool = True
    """Whether a plan with a task that the app at hand does not know is refused. A producer that imports only some of the
    modules turns it off: a task that no worker knows either then fails its step."""
    channel_prefix: str = Field(default="interlock", pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    """Leading part of event channels and of the control queue's name; one per environment that shares a Redis."""

    lease_s: float = Field(default=30, gt=0)
    """How long a claim holds without a heartbeat."""
    heartbeat_s: float = Field(default=10, gt=0)
    """How often a worker renews the claims that it holds."""
    sweep_s: float = Field(default=5, gt=0)
    """How often what is due is looked for."""
    redispatch_s: float = Field(default=30, gt=0)
    """When an unclaimed attempt's message is sent again; doubles up to `redispatch_max_s`."""
    redispatch_max_s: float = Field(default=600, gt=0)
    """Longest time between two messages of one attempt."""
    redispatch_rate: float = Field(default=500, gt=0)
    """Messages that a sweeper sends again in a second."""
    cancel_grace_s: float = Field(default=10, ge=0)
    """Time between the soft signal and the end of the process, for a body that is to stop."""
    report_retry_s: float = Field(default=60, ge=0)
    """How long a worker tries to record an outcome while the database is away."""
    watch_poll_s: float = Field(default=5, gt=0)
    """How often a quiet `watch` looks into the history by itself."""
    command_timeout_s: float = Field(default=10, gt=0)
    """How long a client waits for the answer to a control command."""
    command_ids_kept_s: float = Field(default=86_400, gt=0)
    """How long a command's id is remembered."""
    command_rate: float = Field(default=50, gt=0)
    """Control commands accepted in a second, per session."""

    max_argument_bytes: int = Field(default=256 * 1024, gt=0)
    """Largest arguments of one step, and largest input of a run."""
    max_result_bytes: int = Field(default=1024 * 1024, gt=0)
    """Largest result of one step."""
    max_steps: int = Field(default=10_000, gt=0)
    """Steps of one workflow."""
    max_dispatch_unknown: int = Field(default=5, gt=0)
    """Dispatches of a task that no worker knows before its step fails."""

    @classmethod
    def load(
        cls,
        configuration: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **explicit: Any,
    ) -> Settings:
        """Collect the settings: explicit ones first, then the environment, then Celery's configuration.

        Args:
            configuration: A Celery app's `conf`, or any mapping.
            environment: `os.environ` by default.
            **explicit: Settings that win over both; None means not given.

        Raises:
            ConfigurationError: A value does not fit; the message names the setting and where it came from.
        """
        values: dict[str, Any] = {}
        for name in cls.model_fields:
            value = (configuration or {}).get(_CELERY_PREFIX + name)
            if value is not None:
                values[name] = value
        source = os.environ if environment is None else environment
        for name in cls.model_fields:
            value = source.get(_ENVIRONMENT_PREFIX + name.upper())
            if value:
                values[name] = value
        values.update((name, value) for name, value in explicit.items() if value is not None)
        try:
            return cls(**values)
        except ValidationError as error:
            faults = "; ".join(
                f"{_CELERY_PREFIX}{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            )
            raise ConfigurationError(faults) from error

"""Every setting, its default and its name.

A setting `lease_s` is `interlock_lease_s` in Celery's configuration and `INTERLOCK_LEASE_S` in the environment; the
environment wins, so that one image can be deployed in several places.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from .errors import ConfigurationError
from .names import check_name
from .redaction import redacted_url

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ANY_SESSION", "Settings"]

ANY_SESSION = "*"
"""In `signing_keys`, every session that is not named."""
_SHORTEST_KEY = 32

_CELERY_PREFIX = "interlock_"
_ENVIRONMENT_PREFIX = "INTERLOCK_"


class Settings(BaseModel):
    """Names, addresses, limits and times. Times are in seconds, sizes in bytes of JSON text."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: str | None = None
    """SQLAlchemy URL of the database; needed by workers, optional for clients."""
    redis_url: str | None = None
    """Redis for events; the broker's, when the broker is Redis and this is not set."""
    app: str | None = None
    """Import path (`package.module:attribute`) of the Celery app, where it cannot be found by itself."""
    guards_file: str | None = None
    """YAML file that attaches guards to edges (docs/guards.md); every process that moves workflows needs it."""
    check_tasks: bool = True
    """Whether a plan with a task that the app at hand does not know is refused; an app without tasks of its own refuses none. A
    producer that imports only some of the modules turns it off: a task that no worker knows either then fails its step."""
    show_payloads: bool = False
    """Whether Celery may show the arguments and results of steps: in the worker's log, in `celery inspect` and in Flower."""
    broker_copies: bool = False
    """Whether kombu keeps a copy on Redis of each step's message that a worker has taken, as it does of other messages. The
    sweeper needs none: without them a step costs two round trips less."""
    channel_prefix: str = Field(default="interlock", pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    """Leading part of event channels and of the control queue's name; one per environment that shares a Redis."""

    lease_s: float = Field(default=30, gt=0)
    """How long a claim holds without a heartbeat."""
    heartbeat_s: float = Field(default=10, gt=0)
    """How often a worker renews the claims that it holds."""
    sweep_s: float = Field(default=5, gt=0)
    """How often what is due is looked for."""
    redispatch_s: float = Field(default=30, gt=0)
    """When an unclaimed attempt's message is sent again; doubles up to `redispatch_max_s`. One that is in no queue and with no
    worker is sent again after a few sweeps."""
    redispatch_max_s: float = Field(default=600, gt=0)
    """Longest time between two messages of one attempt."""
    redispatch_rate: float = Field(default=500, gt=0)
    """Messages that all sweepers together send again in a second."""
    cancel_grace_s: float = Field(default=10, ge=0)
    """Time between the soft signal and the end of the process, for a body that is to stop."""
    run_through_s: float = Field(default=30, ge=0)
    """How long a worker's process goes on from step to step on one message, where the plan asks for it (`run_through`); then the
    next step gets a message of its own. 0: every step does."""
    report_retry_s: float = Field(default=60, ge=0)
    """How long a worker tries to record an outcome while the database is away."""
    idle_transaction_s: float = Field(default=60, gt=0)
    """How long a process that stands still in the middle of a transaction may keep a workflow locked; PostgreSQL alone."""
    watch_poll_s: float = Field(default=5, gt=0)
    """How often a quiet `watch` looks into the history by itself."""
    command_timeout_s: float = Field(default=10, gt=0)
    """How long a client waits for the answer to a control command."""
    command_ids_kept_s: float = Field(default=86_400, gt=0)
    """How long a command's id is remembered."""
    command_rate: float = Field(default=50, gt=0)
    """Control commands that an engine accepts in a second, per session."""
    command_rate_total: float = Field(default=500, gt=0)
    """Control commands that an engine accepts in a second, of all sessions together."""
    signing_keys: dict[str, tuple[SecretStr, ...]] = Field(default_factory=dict)
    """Keys that sign control commands (SECURITY.md): session → a key, or a list of which the first signs and each is accepted;
    `*` is every session without keys of its own. A mapping or JSON; a key has 32 characters or more."""
    signing_required: bool = True
    """Whether commands without a signature are refused where the session has a key, and answers without one by the client.
    Turned off only while keys are brought out."""
    signature_window_s: float = Field(default=300, gt=0)
    """How far a signed command's time may be from the engine's clock; at most half of `command_ids_kept_s`."""

    max_argument_bytes: int = Field(default=256 * 1024, gt=0)
    """Largest arguments of one step, and largest input of a run."""
    max_result_bytes: int = Field(default=1024 * 1024, gt=0)
    """Largest result of one step."""
    max_error_characters: int = Field(default=10_000, ge=100)
    """Longest error of a step, and longest traceback, with a mark where more was cut: of an error the end, of a traceback the
    beginning."""
    max_command_bytes: int = Field(default=8 * 1024 * 1024, gt=0)
    """Largest control command, plan and input included."""
    max_steps: int = Field(default=10_000, gt=0)
    """Steps of one workflow."""
    max_dispatch_unknown: int = Field(default=5, gt=0)
    """How often workers may drop a step's message, not knowing its task, before the step fails."""

    @field_validator("signing_keys", mode="before")
    @classmethod
    def _read_keys(cls, given: object) -> object:
        """JSON text (the environment has no other) as a mapping, and a single key as a list of one."""
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except ValueError:
                msg = "is not JSON"
                raise ValueError(msg) from None  # the cause holds the text
        if not isinstance(given, Mapping):
            msg = "must map sessions to keys"
            raise ValueError(msg)  # noqa: TRY004 - what pydantic makes a fault of
        return {name: [keys] if isinstance(keys, str | SecretStr) else keys for name, keys in given.items()}

    @field_validator("signing_keys")
    @classmethod
    def _check_keys(cls, keys: dict[str, tuple[SecretStr, ...]]) -> dict[str, tuple[SecretStr, ...]]:
        for session, of_session in keys.items():
            if session != ANY_SESSION:
                check_name("session", session)
            if not of_session:
                msg = f"session {session} has an empty list of keys: leave it out, or give it a key"
                raise ValueError(msg)
            if any(len(key.get_secret_value()) < _SHORTEST_KEY for key in of_session):
                msg = f"a key of session {session} has under {_SHORTEST_KEY} characters: try openssl rand -hex 32"
                raise ValueError(msg)
        return keys

    @model_validator(mode="after")
    def _remembers_ids_long_enough(self) -> Self:
        # A time may lie one window ahead, and is good for one more: until then its id must be known.
        if self.signing_keys and self.command_ids_kept_s < 2 * self.signature_window_s:
            msg = "command_ids_kept_s is under twice signature_window_s: a recorded command could be sent again"
            raise ValueError(msg)
        return self

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
            ConfigurationError: A value does not fit; the message names the setting, not the value.
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
            raise ConfigurationError(faults) from None  # the cause holds what was given, passwords too

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields as pydantic shows them, of addresses only the place."""
        for name, value in super().__repr_args__():
            shown = redacted_url(value) if name is not None and name.endswith("_url") and value else value
            yield name, shown

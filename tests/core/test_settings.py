"""Settings: where they come from, and which source wins."""

from __future__ import annotations

from interlock.core.settings import Settings


def test_what_is_given_wins_over_the_environment_and_that_over_celerys_configuration() -> None:
    configuration = {
        "interlock_lease_s": 20,
        "interlock_sweep_s": 21,
        "interlock_heartbeat_s": 3,
        "broker_url": "redis://",
    }
    environment = {"INTERLOCK_LEASE_S": "30", "INTERLOCK_SWEEP_S": "31"}
    settings = Settings.load(configuration, environment, lease_s=40)
    assert (settings.lease_s, settings.sweep_s, settings.heartbeat_s) == (40, 31, 3)

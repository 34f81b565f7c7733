"""What `make soak` shows over 50,000 steps and 100 restarts, as far as it shows in minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak.connections import restart_broker
from tests.soak.memory import grow
from tests.soak.site import ADVISED, FLAT, soaking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.deployment import Deployment

pytestmark = [pytest.mark.faults, pytest.mark.integration, pytest.mark.timeout(900)]

STEPS, WARM_UP = 3_000, 1_000
KB_PER_1000_STEPS = 2_000
RESTARTS, WARM_UP_RESTARTS = 6, 3


@pytest.fixture
def site() -> Iterator[Deployment]:
    """Servers that no other test uses: what is open there is counted."""
    with soaking() as deployment:
        yield deployment


def test_a_worker_does_not_grow_with_the_steps_that_it_runs(site: Deployment) -> None:
    """2 MB in 1,000 steps is 2 kB a step: what this short run can tell from the noise. The limit of ±10 % holds as well."""
    worker = site.worker("soaked", INTERLOCK_REDISPATCH_S="30", INTERLOCK_LEASE_S="30")
    growth = grow(site, worker, steps=STEPS, warm_up=WARM_UP, say=lambda *_: None)
    assert {
        name: each for name, each in growth.items() if each.slope_kb > KB_PER_1000_STEPS or each.spread > FLAT
    } == {}
    assert len(growth) == 4, "MAIN, two pool processes and the engine"


def test_restarts_of_the_broker_leave_nothing_open(site: Deployment) -> None:
    worker = site.worker("soaked", args=ADVISED)
    with site.remote_client() as remote:
        times = {"times": RESTARTS, "warm_up": WARM_UP_RESTARTS}
        before, after = restart_broker(site, worker, remote, **times, say=lambda _: None)
    assert after.more_than(before) == {}

"""All measurements in order, by the names that `--only` knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .workloads.aging import measure_aging
from .workloads.cascades import measure_cascades
from .workloads.enqueueing import measure_enqueueing
from .workloads.flows import flows, measure_flows
from .workloads.latency import measure_latency
from .workloads.recovery import measure_recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .measuring import Sample
    from .options import Options
    from .site import Site

__all__ = ["measure", "titles"]

_OTHERS: Mapping[str, Callable[[Site, Options], Iterator[Sample]]] = {
    "enqueue": measure_enqueueing,
    "latency": measure_latency,
    "cascade": measure_cascades,
    "recovery": measure_recovery,
    "aging": measure_aging,
}


def measure(site: Site, options: Options) -> Iterator[Sample]:
    """Make the measurements that are asked for."""
    wanted = [flow for flow in flows(options.sizes) if flow.name in options.only]
    yield from measure_flows(site, options, wanted)
    for name, measurement in _OTHERS.items():
        if name in options.only:
            yield from measurement(site, options)


def titles(options: Options) -> dict[str, str]:
    """What each workload is, in words, with its size."""
    sizes = options.sizes
    chains = f"{sizes.chain_runs} workflows of {sizes.chain_length} steps"
    return {
        **{flow.name: flow.title for flow in flows(sizes)},
        "enqueue": f"Enqueueing {chains}",
        "enqueue_small": f"Enqueueing {sizes.small_runs} workflows of 3 steps",
        "events_alone": "From the history row to a subscriber, one chain alone",
        "events_loaded": f"From the history row to a subscriber, {chains} at once",
        "start_alone": "From the predecessor's history row to the body, one chain alone",
        "start_loaded": f"From the predecessor's history row to the body, {chains} at once",
        "claim_alone": "From the claim's history row to the body, one chain alone",
        "claim_loaded": f"From the claim's history row to the body, {chains} at once",
        "cascade": f"Verbs on one workflow of {sizes.many:,} steps",
        "recovery": f"Sending {sizes.many:,} lost messages again",
        "aging": "One transition, by rows of history",
    }

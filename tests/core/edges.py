"""The edges of SPEC section 1, written out a second time: what the tables of the product are compared with."""

from __future__ import annotations

WORKFLOW_STATES = (
    "draft",
    "planning",
    "executing",
    "paused",
    "waiting_approval",
    "completed",
    "failed",
    "cancelled",
)

STEP_STATES = (
    "pending",
    "running",
    "paused",
    "waiting_approval",
    "completed",
    "failed",
    "skipped",
    "cancelled",
)

WORKFLOW_EDGES = frozenset(
    {
        ("draft", "planning"),
        ("draft", "cancelled"),
        ("planning", "executing"),
        ("planning", "failed"),
        ("planning", "cancelled"),
        ("executing", "paused"),
        ("executing", "waiting_approval"),
        ("executing", "completed"),
        ("executing", "failed"),
        ("executing", "cancelled"),
        ("paused", "executing"),
        ("paused", "cancelled"),
        ("waiting_approval", "executing"),
        ("waiting_approval", "cancelled"),
    },
)

STEP_EDGES = frozenset(
    {
        ("pending", "running"),
        ("pending", "skipped"),
        ("pending", "cancelled"),
        ("running", "paused"),
        ("running", "waiting_approval"),
        ("running", "completed"),
        ("running", "failed"),
        ("running", "cancelled"),
        ("paused", "running"),
        ("paused", "cancelled"),
        ("waiting_approval", "running"),
        ("waiting_approval", "cancelled"),
        ("failed", "running"),
    },
)

EDGES = {"workflow_run": WORKFLOW_EDGES, "workflow_step": STEP_EDGES}
STATES = {"workflow_run": WORKFLOW_STATES, "workflow_step": STEP_STATES}
TERMINAL = {
    kind: frozenset(state for state in STATES[kind] if all(source != state for source, _ in EDGES[kind]))
    for kind in EDGES
}

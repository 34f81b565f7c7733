"""The rules as data and pure functions: states, transitions, readiness and retry; no input or output."""

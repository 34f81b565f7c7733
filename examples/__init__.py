"""Workflows that a stranger can run after a clone: each folder is one."""

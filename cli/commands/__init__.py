"""The commands that read and act, one module for each group."""

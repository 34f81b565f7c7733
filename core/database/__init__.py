"""Engines, tables, connections and transactions of either database; knows no state machine."""

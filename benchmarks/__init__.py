"""Measures Interlock beside what people would use instead: `make bench`, `make bench-quick`, `make bench-peers`.

Everything runs on servers of its own. What is compared is measured in one run, in turns, because a machine's speed drifts by more
than the differences that matter; so only ratios within one run mean anything. Nothing here is in the wheel.
"""

"""Other systems, each in an environment of its own that `make bench-peers` builds.

The scripts `*_peer.py` run there, by path, and import nothing of ours; `environments` builds what they run in.
"""

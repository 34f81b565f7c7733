"""What producers, operators and subscribers import: every verb, with or without a database at hand."""

from __future__ import annotations

from .operating import OperatorVerbs
from .producing import ProducerVerbs
from .subscribing import SubscriberVerbs

__all__ = ["Client"]


class Client(ProducerVerbs, OperatorVerbs, SubscriberVerbs):
    """Verbs on the runs of one session."""

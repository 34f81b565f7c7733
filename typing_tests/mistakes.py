"""Mistakes that a type checker finds."""

from interlock import Client, Nonsense, RetryPolicy, Step, Workflow, current_step  # E: attr-defined
from interlock.core import GuardContext, guard
from interlock.core import Missing as _Missing  # E: attr-defined
from interlock.migrations import upgrad  # E: attr-defined

step = Step("charge", "shop.charge", retires=3)  # E: call-arg
Step("charge", 7)  # E: arg-type
Workflow("order", [step])  # E: call-arg, arg-type
Workflow("order", "Charge", [step], limits=3)  # E: arg-type
RetryPolicy(max_attempts="3")  # E: arg-type
current_step().progress(1)  # E: union-attr

client = Client(database="sqlite:///x.db")  # E: call-arg
client.pause("x", stp="charge")  # E: call-arg
client.settle("x", "charge", {"paid": True})  # E: call-arg
run: int = client.enqueue(Workflow("order", "Charge", [step]))  # E: assignment
client.cancle("x")  # E: attr-defined


@guard("weekday")  # E: arg-type
def weekday(context: GuardContext) -> str:
    """Return something that is no answer."""
    return context.actor

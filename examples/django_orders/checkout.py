"""Placing orders: the workflow starts when the order is committed, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import CharField, Exists, OuterRef, Value
from django.db.models.functions import Cast, Concat

from interlock import Client, Step, Workflow

from .application import app
from .models import Order, WorkflowRun
from .tasks import charge, ship

if TYPE_CHECKING:
    from django.db.models import QuerySet

charged = Step("charge", charge, args=[{"$expr": "input.order"}])
shipped = Step("ship", ship, args=[{"$expr": "input.order"}, charged.result], after=charged)
workflow = Workflow("order", "Charge and ship an order", [charged, shipped])


def place_order(customer: str, cents: int) -> Order:
    """Stores an order, and starts its workflow once it is committed.

    `robust`: where starting fails, the order stands all the same, and `catch_up` starts the workflow later.

    Raises:
        IntegrityError: It costs nothing; there is no order then, and no workflow.
    """
    with transaction.atomic():
        order = Order.objects.create(customer=customer, cents=cents)
        transaction.on_commit(lambda: start(order), robust=True)
    return order


def start(order: Order) -> str:
    """Starts the workflow of an order, and returns the run's id; again, it is the same run."""
    with Client(app) as client:
        return client.enqueue(workflow, {"order": order.pk}, idempotency_key=order.workflow_key)


def without_workflow() -> QuerySet[Order]:
    """The orders that have none: their process ended between the commit and the start."""
    key = Concat(Value("order-"), Cast(OuterRef("pk"), CharField()))
    started = WorkflowRun.objects.filter(session_id="default", idempotency_key=key)
    return Order.objects.filter(~Exists(started))


def catch_up() -> int:
    """Starts what `on_commit` could not, and returns how many; to be called every few minutes, by beat for example.

    One that is being started at the same moment is no harm: the idempotency key makes it one run.
    """
    orders = list(without_workflow())
    for order in orders:
        start(order)
    return len(orders)

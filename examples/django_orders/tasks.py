"""The tasks of the workflow, on Django's models as ever."""

from __future__ import annotations

from celery import shared_task

from .models import Order


@shared_task
def charge(order_id: int) -> int:
    """Charges the customer, and returns the cents."""
    return Order.objects.get(pk=order_id).cents


@shared_task
def ship(order_id: int, cents: int) -> str:
    """Ships what was paid."""
    order = Order.objects.get(pk=order_id)
    order.state = "shipped"
    order.save(update_fields=["state"])
    return f"{order}: {cents} cents, shipped"

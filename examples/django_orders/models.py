"""An order; and the table of workflow runs, to be read, where it is in the same database."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Order(models.Model):
    """What a customer has ordered."""

    customer = models.CharField(max_length=100)
    cents = models.IntegerField()
    state = models.CharField(max_length=20, default="placed")

    class Meta:
        """An order costs something."""

        constraints: ClassVar = [models.CheckConstraint(condition=models.Q(cents__gt=0), name="costs_something")]

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer}"

    @property
    def workflow_key(self) -> str:
        """The idempotency key of its workflow."""
        return f"order-{self.pk}"


class WorkflowRun(models.Model):
    """A row of Interlock's `workflow_runs`. Only for reading: Interlock alone moves runs."""

    id = models.UUIDField(primary_key=True)
    session_id = models.CharField(max_length=200)
    idempotency_key = models.CharField(max_length=200)
    status = models.CharField(max_length=20)

    class Meta:
        """Interlock's migrations make the table."""

        managed = False
        db_table = "workflow_runs"

    def __str__(self) -> str:
        return f"run {self.pk}, {self.status}"

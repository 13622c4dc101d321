"""A model of the application, and a model that reads sidelight's table of events."""

import datetime
from typing import Any

from django.db import models


class Ticket(models.Model):
    """A ticket for a seat; each seat is sold once."""

    seat = models.CharField(max_length=8, unique=True)


class Attributes(models.JSONField):
    """A column of JSON: in PostgreSQL the driver has read it, because it is not JSONB."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """See `JSONField`."""
        return (
            value
            if isinstance(value, dict)
            else super().from_db_value(value, expression, connection)
        )


class Event(models.Model):
    """An event of the store. Keys are in the order of time."""

    event_id = models.CharField(primary_key=True, max_length=36)
    type = models.TextField()
    artifact_id = models.TextField(null=True)
    outcome = models.TextField()
    occurred_at = models.BigIntegerField()  # nanoseconds since 1970
    duration = models.BigIntegerField(null=True)  # nanoseconds
    attributes = Attributes()

    class Meta:
        """Django neither creates the table nor changes it."""

        managed = False
        db_table = "events"

    def __str__(self) -> str:
        return f"{self.type} {self.artifact_id}"

    def occurred(self) -> datetime.datetime:
        """When it occurred."""
        return datetime.datetime.fromtimestamp(self.occurred_at / 1e9, tz=datetime.UTC)


class EventsRouter:
    """Events are read from the store, and no migration goes there."""

    def db_for_read(self, model: type[models.Model], **_: object) -> str | None:
        """The database of a model; None leaves it to Django."""
        return "events" if model is Event else None

    def allow_migrate(self, db: str, *_: object, **__: object) -> bool | None:
        """No table of Django is made in the store."""
        return False if db == "events" else None

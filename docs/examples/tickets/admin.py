"""The admin's list of events: a page to look at, without add, change and delete."""

from django.contrib import admin
from django.http import HttpRequest

from tickets.models import Event


@admin.register(Event)
class EventAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in its stubs only
    """Events, the newest first; a search finds all events of an artifact by an index."""

    list_display = ("occurred", "type", "artifact_id", "outcome", "duration", "attributes")
    list_filter = ("type", "outcome")
    search_fields = ("=artifact_id",)
    ordering = ("-event_id",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """No event is added here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        """No event is changed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        """No event is deleted."""
        return False

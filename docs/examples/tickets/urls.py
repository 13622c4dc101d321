"""A view that sells tickets, a middleware, and the admin."""

import uuid
from collections.abc import Callable

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.urls import path

from sidelight import arg, bind, emits, result
from tickets.models import Ticket
from tickets.tasks import print_ticket

View = Callable[[HttpRequest], HttpResponseBase]


def bind_request_id(view: View) -> View:
    """A middleware: every event of a request has its id."""

    def handle(request: HttpRequest) -> HttpResponseBase:
        with bind(request_id=request.headers.get("X-Request-Id") or str(uuid.uuid4())):
            return view(request)

    return handle


@emits("ticket_sold", transaction="default", artifact_id=result.pk, seat=arg.seat)
def sell(seat: str) -> Ticket:
    """The event exists if and only if the transaction commits."""
    return Ticket.objects.create(seat=seat)


def buy(_: HttpRequest, seat: str) -> JsonResponse:
    """Sell a ticket, and let a worker print it once the transaction has committed."""
    with transaction.atomic():
        ticket = sell(seat)
        transaction.on_commit(lambda: print_ticket.delay(ticket.pk))
        if seat == "broken":
            raise ValueError("nobody sits there")
    return JsonResponse({"ticket": ticket.pk})


urlpatterns = [path("buy/<seat>", buy), path("admin/", admin.site.urls)]

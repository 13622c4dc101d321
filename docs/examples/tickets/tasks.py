"""Celery's application and its task. ``@emits`` stands below ``@app.task``."""

import os
from pathlib import Path

import django
from celery import Celery

from sidelight import arg, emits

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tickets.settings")
django.setup()
folder = Path("broker")
folder.mkdir(exist_ok=True)
app = Celery("tickets", broker="filesystem://")
app.conf.broker_transport_options = {
    name: str(folder) for name in ("data_folder_in", "data_folder_out", "control_folder")
}


class PrinterError(Exception):
    """The printer has no paper."""


@app.task(autoretry_for=(PrinterError,), default_retry_delay=0, ignore_result=True)
@emits("ticket_printed", failure="printing_failed", artifact_id=arg.ticket)
def print_ticket(ticket: int) -> None:
    """Print a ticket. Celery tries again after the first attempt; each attempt has its event."""
    if print_ticket.request.retries == 0:
        raise PrinterError(f"no paper for ticket {ticket}")

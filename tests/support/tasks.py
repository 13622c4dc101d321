"""A Celery application whose tasks emit, over a broker of files.

``celery -A tests.support.tasks worker`` sends itself what it is to do: as many tasks as the
environment's FAULTS_TASKS says, kept in FAULTS_BROKER.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_ready
from tests.support.emitting import Caller, Order, prepare, run

faulthandler.register(signal.SIGUSR2)  # where a worker does not end, its stack says why
CALLS = 10  # of a task
TASKS = int(os.environ["FAULTS_TASKS"])
folder = Path(os.environ["FAULTS_BROKER"])
folder.mkdir(exist_ok=True)

app = Celery("faults", broker="filesystem://", backend=None)
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(folder / "control"),
    },
    broker_connection_retry_on_startup=False,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=1,
)

order = Order.received()
prepare(order)
run(Caller(replace(order, calls=20), 0).run)  # in the parent of the pool


@app.task
def work(number: int) -> None:
    """Make the calls of one task."""
    run(Caller(replace(order, first=100 * number, calls=CALLS), 0).run)


@worker_ready.connect
def _send(**_: Any) -> None:
    for number in range(1, TASKS + 1):
        work.delay(number)

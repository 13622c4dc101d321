"""The AsyncAPI document is valid, and the messages of a topic are as it says."""

import datetime
import json
import subprocess
import sys

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field
from tests.support.npm import npm_file
from tests.support.stored import NOON, TRACE, ledger, record

from sidelight import catalogue
from sidelight.record.format import SAMPLED, SPAN
from sidelight.stream import MessageWriter, StreamAddress, asyncapi_document

SPECIFICATION = "6.11.1"
WRITER = {"instance": "i1", "pid": 7, "resource": {"service.name": "s", "host.name": "h"}}
MODULE = '''
from pydantic import BaseModel
from sidelight import catalogue

@catalogue.event("invoice_sent")
class InvoiceSent(BaseModel):
    """An invoice is on its way."""

    artifact_id: str
    pages: int
'''


class Line(BaseModel):
    text: str
    price: float | None


@pytest.fixture(autouse=True)
def declared(empty_catalogue):
    @catalogue.event("invoice_sent")
    class InvoiceSent(BaseModel):
        """An invoice is on its way to a customer."""

        model_config = ConfigDict(extra="forbid")
        artifact_id: str
        organization_id: str | None = None
        pages: int = Field(ge=1)
        lines: list[Line]
        due: datetime.date | None = None

    @catalogue.event("invoice_paid")
    class InvoicePaid(BaseModel):
        lines: tuple[Line, Line]


def specification():
    text = npm_file("@asyncapi/specs", SPECIFICATION, "schemas/3.0.0.json")
    return json.loads(text)


def check(document):
    jsonschema.validate(document, specification())


@pytest.mark.parametrize("address", [None, "kafka://b1:9092,b2:9092/shop.events"])
def test_the_document_is_valid(address):
    document = asyncapi_document(
        catalogue, "Events of a shop", address and StreamAddress.parse(address)
    )
    check(document)
    channel = document["channels"]["events"]
    assert channel["messages"].keys() == {"invoice_sent", "invoice_paid", "sidelight.process"}
    assert channel["address"] == (address and "shop.events")
    assert [each["host"] for each in document.get("servers", {}).values()] == (
        ["b1:9092", "b2:9092"] if address else []
    )


def test_what_is_not_a_document_is_refused():
    document = asyncapi_document(catalogue, "Events of a shop")
    del document["info"]["version"]
    with pytest.raises(jsonschema.ValidationError, match="version"):
        check(document)


LINES = [{"text": "a", "price": 1.5}, {"text": "b", "price": None}]
MESSAGES = {
    "an event": record(
        "invoice_sent",
        artifact="inv-7",
        organization="org",
        duration=5,
        trace=TRACE,
        span=1,
        flags=SPAN | SAMPLED,
        attributes={"pages": 3, "lines": LINES, "due": "2026-07-25"},
    ),
    "a failed event": record(
        "invoice_sent",
        outcome="failed",
        error=("ValueError", "no"),
        attributes={"pages": 3, "lines": []},
    ),
    "an event without artifact": record("invoice_paid", artifact=None, attributes={"lines": LINES}),
    "a ledger": ledger({"spool full": 3}, {"f": {"count": 1, "over": 0, "max": 9, "buckets": []}}),
    "a sign of life": record(
        None, NOON, point="sidelight:ledger", outcome="ledger", attributes={"began": NOON}
    ),
}


@pytest.mark.parametrize("of", MESSAGES.values(), ids=MESSAGES)
def test_messages_are_as_the_document_says(of):
    document = asyncapi_document(catalogue, "Events of a shop")
    message = MessageWriter(WRITER).write(of)
    headers = {name: value.decode() for name, value in message.headers}
    told = document["components"]["messages"][headers["ce_type"]]
    validated(document, told["headers"], headers)
    validated(document, told["payload"], json.loads(message.value))
    with pytest.raises(jsonschema.ValidationError):
        validated(document, told["headers"], {**headers, "ce_type": "another"})


def validated(document, schema, value):
    jsonschema.validate(value, {**schema, "components": document["components"]})


def test_a_changed_payload_changes_the_version():
    before = asyncapi_document(catalogue, "Events")["info"]["version"]
    assert asyncapi_document(catalogue, "Events")["info"]["version"] == before

    @catalogue.event("invoice_lost")
    class InvoiceLost(BaseModel):
        pages: int

    assert asyncapi_document(catalogue, "Events")["info"]["version"] != before


def test_the_command_writes_it(tmp_path):
    (tmp_path / "shop_declares.py").write_text(MODULE)
    command = ["catalogue", "shop_declares", "--asyncapi", "--stream", "kafka://b1:9092/shop"]
    ran = subprocess.run(
        [sys.executable, "-m", "sidelight", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    document = json.loads(ran.stdout)
    check(document)
    assert document["info"]["title"] == "Events of shop_declares"
    assert document["channels"]["events"]["address"] == "shop"
    assert document["components"]["messages"]["invoice_sent"]["summary"].startswith("An invoice")

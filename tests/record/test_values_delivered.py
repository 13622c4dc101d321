"""The table of docs/reference/values.md, row by row in each sink; and fields that are not read."""

import dataclasses
import datetime
import decimal
import enum
import fractions
import gzip
import json
import pathlib
import re
import uuid

import pydantic
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from sqlalchemy import create_engine, text
from tests.docs.pages import ROOT, Page
from tests.support.proxy import Proxy
from tests.support.stored import BACKENDS

import sidelight
from sidelight.testing import capture

NAMES = {
    name: pytest.importorskip(name, reason=f"no {name}: pip install {name}")
    for name in ("numpy", "pandas", "polars")
}
for each in (
    *(datetime.date, datetime.datetime, datetime.timedelta, decimal.Decimal, fractions.Fraction),
    *(pathlib.PurePosixPath, uuid.UUID),
):
    NAMES[each.__name__] = each
NAMES["UTC"] = datetime.UTC

PAGE = Page(ROOT / "docs" / "reference" / "values.md")
ROW = re.compile(r"^\| .+? \| `(.+?)` \| `(.+?)` \| (\w+)(?: `(.+)`)? \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.text.replace(r"\|", "|"))
exec(PAGE.blocks[0].text, NAMES)
TABLE = [(eval(source, NAMES), json.loads(stored)) for source, stored, *_ in ROWS]
KINDS = {"kvlist": "map", None: "absent"}


def emit():
    for number, (value, _) in enumerate(TABLE):
        sidelight.emit("told", artifact_id=number, value=value)


def exact(values):
    """Values as JSON, so that 1, 1.0 and True differ."""
    return [json.dumps(value, ensure_ascii=False) for value in values]


STORED = exact(stored for _, stored in TABLE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_the_store(backend, tmp_path):
    url = BACKENDS[backend](tmp_path)
    sidelight.configure(url, otlp=False, spool=tmp_path / "spool")
    emit()
    assert sidelight.flush(60)
    with sidelight.Store(url) as store:
        events = sorted(store.events(), key=lambda event: int(event.artifact_id))
    assert exact(event.attributes["value"] for event in events) == STORED
    table = "events" if backend == "sqlite" else "sidelight.events"
    query = f"SELECT CAST(attributes AS TEXT) FROM {table} ORDER BY CAST(artifact_id AS INTEGER)"
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        held = [json.loads(told)["value"] for told in connection.execute(text(query)).scalars()]
        assert exact(held) == STORED
        if backend == "postgresql":  # it reads every value as JSONB as well
            connection.execute(text(f"SELECT attributes::jsonb FROM {table}")).all()
    engine.dispose()


def test_over_otlp(tmp_path):
    with Proxy(mode="answer") as proxy:
        proxy.answer(200)
        sidelight.configure(f"sqlite:///{tmp_path}/events.db", otlp=proxy.endpoint)
        emit()
        assert sidelight.flush(60)
    found = {}
    for request in proxy.requests:
        if "logs" in request.path:
            zipped = request.headers.get("content-encoding") == "gzip"
            body = gzip.decompress(request.body) if zipped else request.body
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                for log in resource.scope_logs[0].log_records:
                    held = {attribute.key: attribute.value for attribute in log.attributes}
                    number = int(held["sidelight.artifact.id"].string_value)
                    found[number] = held.get("value")
    assert found.keys() == set(range(len(TABLE)))
    for number, (_, stored, kind, other) in enumerate(ROWS):
        value = found[number]
        held = value and value.WhichOneof("value")
        held = held and held.removesuffix("_value")
        expected = json.loads(other or stored)
        assert (KINDS.get(held, held), exact([plain(value)])) == (kind, exact([expected]))


def plain(value):
    """A value of OTLP as Python has it."""
    held = value and value.WhichOneof("value")
    if held is None:
        return None
    if held == "array_value":
        return [plain(each) for each in value.array_value.values]
    if held == "kvlist_value":
        return {each.key: plain(each.value) for each in value.kvlist_value.values}
    return getattr(value, held)


def test_recorded_in_a_test():
    with capture() as recorded:
        emit()
    assert exact(event.attributes["value"] for event in recorded) == STORED


@dataclasses.dataclass
class Masked:
    password: str

    def __repr__(self):
        return "Masked(***)"


class Lazy:
    """As an ORM's class: reading its attribute would send SQL."""

    def __get__(self, instance, owner):
        raise AssertionError("it was read")


@dataclasses.dataclass
class Mapped:
    loaded: int
    unloaded: int = dataclasses.field(default=0, init=False)


Mapped.unloaded = Lazy()


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    lines: list[Masked]
    hidden: str = dataclasses.field(default="hidden", repr=False)


class Excluded(pydantic.BaseModel):
    currency: str = "EUR"
    note: str = pydantic.Field("hidden", repr=False)
    internal: str = pydantic.Field("hidden", exclude=True)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Masked("hidden"), "Masked(***)"),
        (Mapped(1), {"loaded": 1}),
        (Slotted([Masked("hidden")]), {"lines": ["Masked(***)"]}),
        (Excluded(), {"currency": "EUR"}),
        (Colour, f"{__name__}.Colour"),
        ({"b\0": "\\u0000"}, {"b␀": "\\u0000"}),
        ({1: "a", "1": "b", "c": 3}, {"1": "b", "c": 3, "… 1 more": "…"}),
        (NAMES["pandas"].NaT, None),
        (NAMES["numpy"].timedelta64("NaT", "s"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_kept_of(value, expected):
    with capture() as recorded:
        sidelight.emit("told", value=value)
    assert recorded.one().attributes["value"] == expected

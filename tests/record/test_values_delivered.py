"""The table of the documentation: which value a field may have, and what each back end holds."""

import dataclasses
import datetime
import decimal
import enum
import gzip
import json
import pathlib
import uuid

import pydantic
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from sqlalchemy import create_engine, text
from tests.support import otlp_json
from tests.support.proxy import Proxy
from tests.support.stored import BACKENDS

import sidelight
from sidelight.testing import capture

numpy = pytest.importorskip("numpy", reason="no numpy: pip install numpy pandas")
pandas = pytest.importorskip("pandas", reason="no pandas: pip install pandas")


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Order:
    number: int
    lines: list["Line"]
    secret: str = dataclasses.field(default="hidden", repr=False)


@dataclasses.dataclass(slots=True, frozen=True)
class Line:
    item: str
    price: decimal.Decimal
    ordered: "datetime.date | None" = None


@dataclasses.dataclass
class Masked:
    password: str

    def __repr__(self):
        return "Masked(***)"


class Money(pydantic.BaseModel):
    amount: decimal.Decimal
    currency: str = "EUR"
    token: pydantic.SecretStr = pydantic.SecretStr("hidden")
    note: str = pydantic.Field("hidden", repr=False)
    internal: str = pydantic.Field("hidden", exclude=True)


class Lazy:
    """As an ORM's class: reading its attribute would send SQL."""

    def __get__(self, instance, owner):
        raise AssertionError("it was read")


@dataclasses.dataclass
class Mapped:
    loaded: int
    unloaded: int = dataclasses.field(default=0, init=False)


Mapped.unloaded = Lazy()

NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
TABLE = [
    ("text", "text"),
    ("nul \0 and \\u0000", "nul ␀ and \\u0000"),
    (7, 7),
    (2**64, "0x10000000000000000"),
    (1.5, 1.5),
    (float("nan"), "nan"),
    (True, True),
    (NOON, "2026-01-02T12:00:00+00:00"),
    (NOON.date(), "2026-01-02"),
    (datetime.timedelta(minutes=1), 60.0),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (decimal.Decimal("1.10"), "1.10"),
    (pathlib.PurePosixPath("/a"), "/a"),
    (Colour.RED, "red"),
    (Colour, f"{__name__}.Colour"),
    (b"abc", "<3 bytes>"),
    ([1, "a"], [1, "a"]),
    ({"a": {"b\0": 1}}, {"a": {"b␀": 1}}),
    (Order(7, [Line("tea", decimal.Decimal("2.50"), NOON.date())]),
     {"number": 7, "lines": [{"item": "tea", "price": "2.50", "ordered": "2026-01-02"}]}),
    (Masked("hidden"), "Masked(***)"),
    (Mapped(1), {"loaded": 1}),
    (Money(amount="1.10"),
     {"amount": "1.10", "currency": "EUR", "token": "SecretStr('**********')"}),
    (numpy.int16(5), 5),
    (numpy.float32(0.5), 0.5),
    (numpy.bool_(True), True),
    (numpy.str_("x"), "x"),
    (numpy.datetime64("2026-01-02T03:04:05.000000006"), "2026-01-02T03:04:05.000000006"),
    (numpy.timedelta64(1500, "ms"), 1.5),
    (numpy.timedelta64(2, "M"), "2 months"),
    (numpy.array(5), 5),
    (pandas.Timestamp("2026-01-02T12:00Z"), "2026-01-02T12:00:00+00:00"),
    (pandas.Timedelta("1min"), 60.0),
]  # fmt: skip
MISSING = [None, pandas.NaT, pandas.NA, numpy.datetime64("NaT"), numpy.timedelta64("NaT")]


def emit():
    for number, (value, _) in enumerate(TABLE):
        sidelight.emit("told", artifact_id=number, value=value)


@pytest.fixture
def delivered(request, tmp_path):
    """Deliver the table to one back end, and give the URL of its store."""
    url = BACKENDS[request.param](tmp_path)
    sidelight.configure(url, otlp=False, spool=tmp_path / "spool")
    emit()
    assert sidelight.flush(60)
    return url


EXPECTED = [expected for _, expected in TABLE]


@pytest.mark.parametrize("delivered", BACKENDS, indirect=True)
def test_in_the_store(delivered):
    with sidelight.Store(delivered) as store:
        events = sorted(store.events(), key=lambda event: int(event.artifact_id))
    assert [event.attributes["value"] for event in events] == EXPECTED


@pytest.mark.parametrize("delivered", ["postgresql"], indirect=True)
def test_postgresql_reads_every_attribute(delivered):
    engine = create_engine(delivered.replace("postgresql:", "postgresql+psycopg:"))
    query = "SELECT attributes::jsonb -> 'value' FROM sidelight.events ORDER BY artifact_id::int"
    with engine.connect() as connection:
        assert connection.execute(text(query)).scalars().all() == EXPECTED
    engine.dispose()


def test_over_otlp(tmp_path):
    with Proxy(mode="answer") as proxy:
        proxy.answer(200)
        sidelight.configure(f"sqlite:///{tmp_path}/events.db", otlp=proxy.endpoint)
        emit()
        assert sidelight.flush(60)
    logs = []
    for request in proxy.requests:
        if "logs" in request.path:
            zipped = request.headers.get("content-encoding") == "gzip"
            body = gzip.decompress(request.body) if zipped else request.body
            message = MessageToDict(ExportLogsServiceRequest.FromString(body))
            logs += otlp_json.logs(json.dumps(message))
    found = {int(log.attributes["sidelight.artifact.id"]): log.attributes["value"] for log in logs}
    nul = json.loads(json.dumps(EXPECTED).replace("\\u2400", "\\u0000"))  # OTLP has that character
    assert found == dict(enumerate(nul))


def test_recorded_in_a_test():
    with capture() as recorded:
        emit()
        for value in MISSING:
            sidelight.emit("missing", value=value)
    assert [event.attributes["value"] for event in recorded.of("told")] == EXPECTED
    assert [event.attributes["value"] for event in recorded.of("missing")] == [None] * len(MISSING)

"""A relay delivers the segments for its store, however the two URLs are spelt."""

import os

import pytest
from tests.support.platforms import needs_spool_files

from sidelight.record import frame, is_same_store
from sidelight.runtime import writer_meta
from sidelight.settings import Settings, settle
from sidelight.spool import Spool

POSTGRES = "postgresql://events@db.internal/events"


@pytest.mark.parametrize(
    "other",
    [
        "postgres://events@db.internal/events",
        "postgresql+psycopg://events@db.internal/events",
        "postgresql+asyncpg://events:***@DB.internal:5432/events",
        "postgresql://other:secret@db.internal/events?sslmode=require",
        "postgresql:///events?host=db.internal",
        "postgresql://db.internal?dbname=events",
        None,
    ],
)
def test_one_postgresql(other):
    assert is_same_store(POSTGRES, other)
    assert is_same_store(other, POSTGRES)


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://127.0.0.1/events",
        "postgresql://events@localhost:5432/events",
        "postgres://127.0.0.1:5432/events?sslmode=disable",
        "postgresql+psycopg://events:secret@LOCALHOST/events",
    ],
)
def test_one_default_spool(other, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    local = "postgresql://localhost/events"
    assert is_same_store(local, other)
    assert settle(local, environment={}).spool == settle(other, environment={}).spool


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://events@db.internal:5433/events",
        "postgresql://events@db.internal/orders",
        "postgresql://events@other.internal/events",
        "postgresql://events@db.internal/events?hostaddr=10.0.0.2",
        "postgresql://events@db.internal/events?service=other",
        "postgresql://events@db.internal:port/events",
        "sqlite:////events",
        "nonsense",
    ],
)
def test_another_store(other):
    assert not is_same_store(POSTGRES, other)
    if other.startswith("postgresql") and ":port" not in other:
        assert settle(POSTGRES, environment={}).spool != settle(other, environment={}).spool


def test_one_sqlite_file_by_every_path(tmp_path, monkeypatch):
    path = tmp_path / "data" / "events.db"
    path.parent.mkdir()
    path.touch()
    (tmp_path / "link.db").symlink_to(path)
    (tmp_path / "directory").symlink_to(path.parent)
    monkeypatch.chdir(tmp_path)
    named = [
        "data/events.db",
        "link.db",
        f"{tmp_path}/directory/events.db",
        "data/../data/events.db",
    ]
    for other in named:
        assert is_same_store(f"sqlite:///{path}", f"sqlite:///{other}")
    assert not is_same_store(f"sqlite:///{path}", f"sqlite:///{path}x")
    assert not is_same_store(f"sqlite:///{path}", "sqlite:///gone.db")
    with pytest.raises(Exception, match="also the events store"):
        settle(f"sqlite:///{path}", outboxes=["sqlite:///link.db"], environment={})


def header(tmp_path, store=None, environment=None, **options) -> Settings:
    settings = settle(store, spool=tmp_path, environment=environment or {}, **options)
    return writer_meta(settings, "me")


@needs_spool_files
def test_only_an_external_writer_whose_store_nobody_configured_names_none(tmp_path):
    assert "store" not in header(tmp_path, relay="external")
    assert header(tmp_path)["store"].startswith("sqlite:///")
    assert header(tmp_path, POSTGRES, relay="external")["store"] == POSTGRES
    by_environment = header(tmp_path, None, {"SIDELIGHT_STORE": POSTGRES}, relay="external")
    assert by_environment["store"] == POSTGRES


@needs_spool_files
@pytest.mark.parametrize(
    ("writer", "adopted"),
    [
        (None, True),
        ("postgresql+psycopg://events@db.internal/events", True),
        ("postgresql://events@db.internal/orders", False),
    ],
)
def test_a_relay_adopts_what_is_for_its_store(tmp_path, writer, adopted):
    """As docs/how-to/relay-as-a-service.md has it: the application names the spool only."""
    environment = {"XDG_STATE_HOME": os.fspath(tmp_path)}
    application = Spool(tmp_path, header(tmp_path, writer, environment, relay="external"))
    application.append(frame(b"a record"))
    application.close()
    relay = Spool(tmp_path, {"store": POSTGRES})
    relay.adopt()
    assert bool(list(relay.adopted)) == adopted
    relay.close()

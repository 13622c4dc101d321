"""`sidelight erase`: nothing of the subject is left on this machine, and the receipt is true."""

import time
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from tests.support import business
from tests.support.commands import KILLED, emit, of, relaying, running, sidelight, stored, wait_for
from tests.support.stored import exact, record

from sidelight import Store
from sidelight.cli.spool.erase import _erase_entry
from sidelight.record import blank_payload, decode, encode, frame, ledger_part
from sidelight.record.format import encode_static
from sidelight.spool import Entry, Quarantine
from sidelight.transactions import create_outbox, outbox_table


def spool_of(path):
    return Path(f"{path}-spool")


def bytes_under(path):
    """What the spool and the store hold."""
    files = [*spool_of(path).rglob("*"), *path.parent.glob(f"{path.name}*")]
    return b"".join(each.read_bytes() for each in files if each.is_file())


def erase(path, *options):
    return sidelight("erase", *of(path), "--yes", "--json", *options)


def artifacts(path):
    with Store(f"sqlite:///{path}") as opened:
        return {each.artifact_id for each in opened.artifacts()}


@pytest.fixture
def path(tmp_path):
    """A store with an event of each of two artifacts, of one organization each."""
    made = tmp_path / "events.db"
    emit('receive("first", "acme"); receive("other", "globex"); assert sidelight.flush(60)', made)
    return made


PACKED = KILLED.replace("500", "50")
"""Emits events of order-0 to order-49, and dies before anything was delivered."""


def test_records_of_a_killed_process_are_overwritten(path):
    emit(PACKED, path, ends=9)
    said = erase(path, "--artifact", "order-7")
    (receipt,) = said.json
    assert (said.code, receipt["spool"], receipt["events"]) == (0, 1, 0), said
    assert b"order-7" not in bytes_under(path)
    assert sidelight("relay", "--once", *of(path)).code == 0
    assert stored(path) == 2 + 49
    exact(f"sqlite:///{path}")
    assert "order-7" not in artifacts(path)
    assert sidelight("doctor", *of(path)).code == 0


def test_records_of_an_organization_are_overwritten(path):
    emit(PACKED, path, ends=9)
    (receipt,) = erase(path, "--organization", "north").json
    assert receipt["spool"] == 50
    sidelight("relay", "--once", *of(path))
    assert stored(path) == 2


def test_a_living_process_delivers_and_then_its_records_are_overwritten(path):
    body = 'receive("order-7", "north"); assert sidelight.flush(60); print("up"); sys.stdin.read()'
    with running(body, path):
        said = erase(path, "--artifact", "order-7")
        (receipt,) = said.json
        assert (said.code, receipt["events"], receipt["spool"]) == (0, 1, 1), said
        assert b"order-7" not in bytes_under(path)


def test_records_that_a_living_process_cannot_deliver_are_told(path, monkeypatch):
    monkeypatch.setattr("sidelight.cli.spool.erase._PATIENCE", 0.2)
    body = """
    sidelight.configure(relay="external")
    receive("order-7", "north")
    print("up", flush=True)
    sys.stdin.read()
    """
    with running(body, path):
        said = erase(path, "--artifact", "order-7")
        (receipt,) = said.json
        assert (said.code, receipt["waiting"], receipt["complete"]) == (1, 1, False)
        assert "run the command again" in said.err
        with relaying(*of(path)):
            wait_for(lambda: erase(path, "--artifact", "order-7").code == 0)
            assert b"order-7" not in bytes_under(path)
    assert stored(path) == 2


def quarantined(path, payload, kind="record"):
    entry = Entry(
        kind=kind,
        reason="refused by store",
        problem="for the test",
        refused_by="store",
        sinks=("store",),
        at=time.time_ns(),
        writer={"store": f"sqlite:///{path}", "instance": "i1"},
        segment="s1",
        offset=None,
        payload=payload,
    )
    Quarantine(spool_of(path)).keep(entry)


def payload_of(artifact):
    static, moment = record(artifact=artifact, organization="acme")
    return encode_static(static) + encode(moment)


def test_the_quarantine_is_erased(path):
    spool_of(path).mkdir(exist_ok=True)
    for artifact in ("first", "later"):
        quarantined(path, payload_of(artifact))
    quarantined(path, frame(payload_of("first")) + frame(payload_of("later")), "stretch")
    (receipt,) = erase(path, "--artifact", "first").json
    assert receipt["quarantine"] == 2
    left = [entry.payload for _, entry in Quarantine(spool_of(path)).entries()]
    assert len(left) == 2
    assert not any(b"first" in each for each in left)
    assert all(b"later" in each for each in left)


def test_what_a_relay_adds_to_an_entry_during_an_erasure_stays(tmp_path):
    payload = frame(payload_of("first")) + frame(payload_of("later"))
    quarantine, other = Quarantine(tmp_path), Quarantine(tmp_path)
    fields = {"reason": "r", "problem": "p", "at": 1, "writer": {}, "segment": "s", "offset": 1}
    fields |= {"kind": "stretch", "refused_by": None, "sinks": ("store",)}
    quarantine.keep(Entry(payload=payload, **fields))
    ((identity, listed),) = quarantine.entries()

    def choose(payloads):
        other.keep(msgspec.structs.replace(listed, sinks=("logs",)))
        return [b"first" in each for each in payloads]

    assert _erase_entry(quarantine, identity, listed, choose)
    left = quarantine.read(identity)
    assert left.sinks == ("logs", "store")
    assert (b"first" in left.payload, b"later" in left.payload) == (False, True)


@pytest.mark.parametrize("backend", ["postgresql", "sqlite"])
def test_outboxes_are_erased(path, backend, tmp_path):
    url = getattr(business, backend)(tmp_path)
    create_outbox(url)
    engine = sa.create_engine(url)
    rows = [
        {"position": n, "event_id": f"e{n}", "record": payload_of(f"artifact-{n % 5}")}
        for n in range(1200)
    ]
    with engine.begin() as connection:
        connection.execute(outbox_table().insert(), rows)
    (receipt,) = erase(path, "--artifact", "artifact-3", "--outbox", url).json
    assert receipt["outboxes"] == 240
    with engine.connect() as connection:
        left = connection.execute(sa.select(outbox_table().c.record)).scalars().all()
    engine.dispose()
    assert len(left) == 1200
    assert not any(b"artifact-3" in bytes(each) for each in left)
    sidelight("relay", "--once", *of(path), "--outbox", url)
    assert stored(path) == 2 + 960


def test_an_outbox_that_is_missing_is_told(path, tmp_path):
    said = erase(path, "--artifact", "first", "--outbox", f"sqlite:///{tmp_path / 'none.db'}")
    assert said.code == 1
    assert "there is no such file; check the path" in said.err


def test_nothing_is_erased_without_a_yes(path):
    said = sidelight("erase", *of(path), "--artifact", "first")
    assert (said.code, "--yes" in said.err) == (2, True)
    dry = sidelight("erase", *of(path), "--artifact", "first", "--dry-run", "--json")
    assert dry.json[0] | {"dry_run": True, "events": 1, "complete": False} == dry.json[0]
    assert artifacts(path) == {"first", "other"}


def test_the_receipt_names_what_is_not_reached(path):
    said = sidelight("erase", *of(path), "--artifact", "first", "--yes")
    assert said.code == 0
    for word in ("Collector", "Kafka", "backups", "VACUUM"):
        assert word in said.err
    assert artifacts(path) == {"other"}
    again = erase(path, "--artifact", "first").json[0]
    assert (again["events"], again["complete"]) == (0, True)


def test_late_events_are_dropped_and_told_until_the_tombstone_is_lifted(path):
    erase(path, "--artifact", "first")
    late = """
    receipt = sidelight.emit("order_received", artifact_id="first")
    assert sidelight.flush(60)
    assert receipt.state == {state!r}, receipt.state
    """
    emit(late.format(state="refused"), path)
    assert artifacts(path) == {"other"}
    with Store(f"sqlite:///{path}") as opened:
        assert [each.reason for each in opened.losses()] == ["erased"]
    before = path.stat().st_mtime_ns, path.read_bytes()
    dry = sidelight("erase", *of(path), "--artifact", "first", "--lift", "--dry-run")
    assert (dry.code, dry.err) == (0, "artifact first: relays would store its events again\n")
    assert before == (path.stat().st_mtime_ns, path.read_bytes())
    assert (
        "artifact first: relays store its events again"
        in sidelight("erase", *of(path), "--artifact", "first", "--lift").err
    )
    emit(late.format(state="stored"), path)
    assert artifacts(path) == {"first", "other"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "name an artifact or an organization (--artifact ID, --organization ID)"),
        (("--lift",), "(--artifact ID, --organization ID)"),
        (("--organization", ""), "name an artifact or an organization"),
        (("--artifact", "shared"), "several organizations: acme, globex"),
    ],
    ids=repr,
)
def test_a_bad_subject_is_refused(path, options, told):
    emit('receive("shared", "acme"); receive("shared", "globex"); assert sidelight.flush(60)', path)
    said = erase(path, *options)
    assert (said.code, told in said.err) == (2, True), said
    assert stored(path) == 4


def test_a_subject_that_is_unknown_here_is_told(path):
    """It is erased all the same, for what comes later; then it is known as erased."""
    emit(PACKED, path, ends=9)
    unknown = "neither the store nor the spool here has an event of"
    for kind, name, told in (
        ("artifact", "frist", "; did you mean first?"),
        ("artifact", "0ther", "; did you mean other?"),
        ("artifact", "x", "; an erasure drops those that come later"),
        ("organization", "acmee", "; did you mean acme?"),
        ("artifact", " x", "; an erasure drops those that come later"),
        ("artifact", "", "; an erasure drops those that come later"),
        ("organization", "acme ", "; did you mean acme?"),
        ("artifact", "order-7", None),
        ("artifact", "first", None),
    ):
        for options in ("--dry-run",), ():
            said = erase(path, f"--{kind}", name, *options)
            assert (said.code, said.json[0]["complete"]) == (0, not options)
            if told is None:
                assert unknown not in said.err
            else:
                shown = name if name and name == name.strip() else f"'{name}'"
                assert f"{unknown} {kind} {shown}{told}" in said.err
        assert unknown not in erase(path, f"--{kind}", name).err


def test_what_was_erased_is_told(path):
    again = "artifact first was erased before, and the store holds nothing new of it"
    assert again not in erase(path, "--artifact", "first").err
    for question in (["timeline", "first"], ["events", "--artifact", "first"]):
        said = sidelight(*question, *of(path))
        assert (said.code, said.out) == (1, "")
        assert said.err.endswith("holds no events of the artifact first: it was erased\n")
    assert again in erase(path, "--artifact", "first").err
    assert again in erase(path, "--artifact", "first", "--dry-run").err
    assert ": it was erased" not in sidelight("timeline", "firsd", *of(path)).err


def test_a_spool_that_is_named_must_exist(path, tmp_path):
    misspelt = ("--spool", tmp_path / "none")
    for command in (
        ("erase", "--artifact", "first", "--yes"),
        ("spool",),
        ("spool", "quarantined"),
        ("spool", "replay"),
        ("spool", "discard", "--all"),
        ("relay", "--once"),
    ):
        said = sidelight(*command, *misspelt, *of(path))
        assert (said.code, f"{tmp_path / 'none'}: there is no such directory" in said.err) == (
            1,
            True,
        )
    assert artifacts(path) == {"first", "other"}


def test_a_frame_of_any_length_is_overwritten_in_place():
    shortest = next(n for n in range(200) if blank_payload(n, 1) is not None)
    assert shortest < len(payload_of("")) - 15
    for length in (*range(shortest, shortest + 600), 65_000, *range(65_500, 65_700)):
        payload = blank_payload(length, 1)
        assert payload is not None
        assert len(payload) == length
        assert ledger_part(decode(payload)[1]).losses == {}

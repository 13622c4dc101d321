"""SIGKILL between INSERT and COMMIT, and whenever: the events are those of the committed rows."""

import contextlib
import subprocess
import sys

import pytest
import sqlalchemy
from tests.support import business
from tests.support.balance import balance
from tests.support.commands import of, sidelight
from tests.support.ordering import MOMENTS, moments
from tests.support.postgres import new_database
from tests.support.proxy import Proxy
from tests.support.telemetry import restore

import sidelight as library
from sidelight.emission.emitter import EMITTER

ON_SERVERS = [name for name, database in business.CASES if database == "postgresql"]

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_whoever_is_killed_leaves_the_events_of_what_he_has_committed(
    tmp_path, full, seed, progress, row
):
    rounds, each, cases = *((10, len(MOMENTS)) if full else (1, 2)), []
    for name, database in business.CASES:
        directory = tmp_path / f"{name}-{database}"
        directory.mkdir()
        cases.append((name, business.DATABASES[database](directory)))
        business.create_tables(cases[-1][1])
    store = tmp_path / "events.db"
    command = [sys.executable, "-m", "tests.support.ordering", f"sqlite:///{store}"]
    command += [str(rounds), str(each), str(seed), *(f"{name}={url}" for name, url in cases)]
    wanted, killed = len(cases) * rounds * each, 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ordering:
        for killed, told in enumerate(ordering.stdout, 1):
            progress(f"{killed} of {wanted} killed, {told.strip()}")
    assert ordering.returncode == 0
    assert killed == wanted
    outboxes = [argument for _, url in cases for argument in ("--outbox", url)]
    done = sidelight("relay", "--once", *of(store), *outboxes)
    assert done.code == 0, done.err
    names = business.Watched(f"sqlite:///{store}").stored_names()
    kept = set()
    for case, (name, url) in enumerate(cases):
        committed = business.committed(url)
        assert {told for told in names if told.startswith(f"{url}|")} == committed, name
        assert len(committed) >= rounds * 2 * (each + ("after the commit" in moments(case, each)))
        kept |= committed
    row(1, "killed in a transaction", injected=killed, verdict=balance(kept, names))


@pytest.fixture
def store(tmp_path):
    """Where others relay to; this process only emits."""
    path = tmp_path / "events.db"
    library.configure(f"sqlite:///{path}", relay="external", otlp=False, deadline=1.0)
    yield path
    restore()


def delivered(store, url):
    """The names that the store has once everything has been moved there."""
    for _ in range(2):
        done = sidelight("relay", "--once", *of(store), "--outbox", url)
        assert done.code == 0, done.err
    return business.Watched(f"sqlite:///{store}").stored_names()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ON_SERVERS)
@pytest.mark.parametrize("join", business.JOINS)
def test_a_commit_whose_answer_is_lost(store, name, join, row):
    """It has happened: the event is there with its row; or was given up, and that is counted."""
    url = new_database()
    business.create_tables(url)
    behind = sqlalchemy.make_url(url)
    with Proxy((behind.host, behind.port)) as proxy:
        host, port = proxy.address
        through = behind.set(host=host, port=port).render_as_string(hide_password=False)
        application = business.APPLICATIONS[name](through, join)
        with contextlib.suppress(Exception), application.unit() as unit:
            application.order(unit.target, "answered")
            unit.commit()
            application.order(unit.target, "not answered")
            unit.flush()
            proxy.mode = "lose_reply"
            with pytest.raises(Exception) as met:
                unit.commit()
        proxy.mode = "pass"
        with contextlib.suppress(Exception):
            application.close()
    assert "Transaction" not in type(met.value).__name__
    # On asyncpg a question precedes the commit of what waits for it, and loses its answer instead.
    asks = join == "after_commit" and "asyncpg" in name
    assert business.committed(url) == {"answered", *(() if asks else ("not answered",))}
    found, losses = delivered(store, url), dict(EMITTER.losses)
    counted = losses.pop("commit without an answer", 0)
    verdict = balance(["answered", "not answered"], found, counted=counted)
    row(5, f"answer to a commit lost, {name}, {join}", injected=1, verdict=verdict)
    assert (counted, losses) == (int(join == "after_commit"), {})

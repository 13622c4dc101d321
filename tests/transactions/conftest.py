"""Applications of every kind, on every database that theirs can be, and a store beside them."""

import signal

import pytest
from tests.support import business
from tests.support.stepping import TimeLimit
from tests.support.telemetry import restore

import sidelight


@pytest.fixture(autouse=True)
def _psycopg2_is_installed(request):
    given = getattr(request.node, "callspec", None)
    if given is not None and given.params.get("driver") == "psycopg2":
        pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")


@pytest.fixture
def restored():
    """Close, after the test, what its configuration has opened."""
    yield
    restore()


@pytest.fixture
def interrupt():
    """Interrupts by the error of a signal handler."""

    def ring(*_):
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda: signal.raise_signal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("databases")


@pytest.fixture(scope="module")
def databases(directory):
    """The URLs of databases with tables, by their kind."""
    urls = {kind: make(directory) for kind, make in business.DATABASES.items()}
    for url in urls.values():
        business.create_tables(url)
    return urls


@pytest.fixture(params=business.JOINS)
def join(request):
    return request.param


@pytest.fixture(params=business.CASES, ids=lambda case: "-".join(case))
def case(request):
    return request.param


@pytest.fixture
def url(case, tmp_path):
    return business.shop(case[1], tmp_path)


@pytest.fixture
def watched(url, tmp_path):
    store = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    yield business.Watched(store)
    restore()


@pytest.fixture
def make(case, url):
    """Makes the application of the case."""
    made = []

    def make(join, **options):
        made.append(business.APPLICATIONS[case[0]](url, join, **options))
        return made[-1]

    yield make
    for application in made:
        application.close()


@pytest.fixture
def application(make, join):
    return make(join)

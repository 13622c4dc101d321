"""The hosts in a URL of PostgreSQL, as libpq gets them."""

import pytest

from sidelight.exceptions import ConfigurationError
from sidelight.store.address import parse_url

pytest.importorskip("psycopg")


@pytest.mark.parametrize(("place", "host", "port"), [
    ("/d", None, None),
    ("h/d", "h", None),
    ("u:p%40@h:5433/d", "h", "5433"),
    ("[::1]:5433/d", "::1", "5433"),
    ("a:1,b:2/d?target_session_attrs=read-write", "a,b", "1,2"),
    ("u:p@a,b/d", "a,b", None),
    ("a:5432,[::1]/d", "a,::1", "5432,"),
    ("/d?host=a:1&host=b:2", "a,b", "1,2"),
    ("/d?host=a:1,b:2", "a,b", "1,2"),
    ("/d?host=a,b&port=1,2", "a,b", "1,2"),
    ("/d?host=::1", "::1", None),
    ("/d?host=/var/run/postgresql", "/var/run/postgresql", None),
])  # fmt: skip
def test_hosts(place, host, port):
    found = parse_url(f"postgresql://{place}").parameters
    assert (found.get("host"), found.get("port"), found["dbname"]) == (host, port, "d")


@pytest.mark.parametrize("place", ["h:port/d", "a:1,b:x/d", "::1/d"])
def test_hosts_that_are_none(place):
    with pytest.raises(ConfigurationError, match="is not a URL"):
        parse_url(f"postgresql://{place}")

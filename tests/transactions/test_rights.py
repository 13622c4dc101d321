"""The rights of a relay's role: `outbox status` names those that it lacks, and no others."""

import contextlib
from itertools import combinations

import psycopg
import pytest
from sqlalchemy.engine import make_url
from tests.support.postgres import new_database, own_server

from sidelight.exceptions import OutboxError
from sidelight.transactions import PostgresOutbox, create_outbox, outbox_status

RIGHTS = ("SELECT", "UPDATE (position)", "UPDATE", "DELETE")
SETS = [each for size in range(len(RIGHTS) + 1) for each in combinations(RIGHTS, size)]


@pytest.fixture(scope="module")
def outbox():
    """The URL of an outbox with rows, and of its relay's role; and a connection of its owner."""
    url = new_database(own_server())
    create_outbox(url)
    role = "relay_" + url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN")
        relay = make_url(url).set(username=role).render_as_string(hide_password=False)
        yield relay, role, owner
        owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("rights", SETS, ids=" + ".join)
def test_a_relay_moves_rows_if_and_only_if_nothing_is_said(outbox, rights, rows):
    relay, role, owner = outbox
    owner.execute(f"REVOKE ALL ON sidelight_outbox FROM {role}")
    owner.execute(f"REVOKE ALL (position) ON sidelight_outbox FROM {role}")
    owner.execute("TRUNCATE sidelight_outbox")
    for right in rights:
        owner.execute(f"GRANT {right} ON sidelight_outbox TO {role}")
    for n in range(rows):
        owner.execute("INSERT INTO sidelight_outbox VALUES (%s, %s, '')", (n, str(n)))

    try:
        status = outbox_status(relay)
        said = "" if status.obstacle is None else status.obstacle.problem
        assert status.waiting == rows
    except OutboxError as error:
        said = error.facts["problem"]
    assert ("may not read" in said) == ("SELECT" not in rights)
    if "SELECT" in rights:
        assert ("UPDATE" in said) == ("UPDATE" not in " ".join(rights))
        assert ("DELETE" in said) == ("DELETE" not in rights)

    with contextlib.closing(PostgresOutbox(relay)) as mover:
        if said and (rows or "SELECT" not in rights):
            with pytest.raises(OutboxError):
                mover.move(list, 10)
        elif not said:
            assert mover.move(list, 10) == rows

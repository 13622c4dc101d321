"""Change a store as an operator does by hand: statements, and rules that refuse rows."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import psycopg
import tenacity
from sqlalchemy.engine import make_url
from tests.support.postgres import connected


def alter(url: str, *statements: str) -> None:
    """Run statements in a store, each in a separate transaction."""
    if url.startswith("postgresql"):
        with connected(url) as connection:
            for statement in statements:
                _execute(connection, statement)
        return
    path = make_url(url).database or ""
    with contextlib.closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(psycopg.errors.DeadlockDetected),
    stop=tenacity.stop_after_attempt(10),
    reraise=True,
)
def _execute(connection: psycopg.Connection[Any], statement: str) -> None:
    """The server may end it, and not the relay's, where the two wait for each other."""
    connection.execute(statement)


def rule(
    url: str, table: str, when: str = "true", *, name: str = "not_now", then: str = ""
) -> tuple[str, str]:
    """The statements that make a rule on a table, and end it.

    Args:
        url: the store's.
        table: of which a new row is looked at.
        when: an expression; where it is true the row is refused …
        name: … in this word.
        then: a statement that is run instead.
    """
    if url.startswith("postgresql"):
        then = then or f"RAISE EXCEPTION '{name}'"
        made = f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF {when} THEN {then}; END IF; RETURN NEW; END $$;
        CREATE TRIGGER {name} BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()
        """
        return made, f"DROP FUNCTION {name} CASCADE"
    then = then or f"SELECT RAISE(ABORT, '{name}')"
    made = f"CREATE TRIGGER {name} BEFORE INSERT ON {table} WHEN {when} BEGIN {then}; END"
    return made, f"DROP TRIGGER {name}"

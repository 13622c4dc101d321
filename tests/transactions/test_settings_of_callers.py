"""Whatever a caller's session is set to: an event is stored if and only if its work commits.

Its values are right, the caller's setting stays what it was, and what could not join says so.
"""

import itertools

import psycopg
import pytest
from django.db import connections
from tests.support import business

from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.transactions import statements

#: The settings, as `SHOW` has them.
SETTINGS = {
    "search_path": "nowhere",
    "row_security": "off",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "session_replication_role": "replica",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "client_encoding": "LATIN1",
    "client_encoding ": "SQL_ASCII",
    "client_min_messages": "debug5",
    "array_nulls": "off",
    "bytea_output": "escape",
    "xmlbinary": "hex",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "synchronous_commit": "off",
    "statement_timeout": "7s",
    "lock_timeout": "7s",
    "idle_in_transaction_session_timeout": "7s",
    "plan_cache_mode": "force_generic_plan",
    "enable_indexscan": "off",
    "role": "{role}",
}
#: Those in which an event cannot join: it waits for the commit, and is labelled.
APART = {"default_transaction_read_only": "read-only transaction"}
TEXT = "\\ ' \" % %s :x ? $1 {} \n 漢字 € 😀 NULL"
ODD = {"text": TEXT, "number": 0.1, "large": 2**62, "nothing": "null"}


@pytest.fixture(params=[name for name, database in business.CASES if database == "postgresql"])
def case(request):
    return request.param, "postgresql"


@pytest.fixture
def role(url):
    name = "only_" + url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name}")
        connection.execute(f"GRANT INSERT ON sidelight_outbox TO {name}")
        connection.execute(f"GRANT SELECT, INSERT ON orders TO {name}")
        connection.execute(f"GRANT ALL ON orders_id_seq TO {name}")
    return name


class Caller:
    """One application, with statements of its own in its transactions."""

    def __init__(self, application, unit):
        self.unit = unit
        self.application = application
        function = application.insert
        if isinstance(application, business._Looping):

            async def look(target, name, odd):
                await function(target, name)

            async def look_only(target, name, odd):
                pass
        else:

            def look(target, name, odd):
                function(target, name)

            def look_only(target, name, odd):
                pass

        fields = {name: arg.odd[name] for name in ODD}
        emitting = emits("ordered", n=arg.name, transaction=arg.target, **fields)
        self.order, self.look = emitting(look), emitting(look_only)

    def emit(self, name, *, writes):
        """Call the function."""
        function = self.order if writes else self.look
        self.unit.run(function(self.unit.target, name, ODD))
        self.unit.flush()

    def execute(self, statement):
        """Execute a statement of the caller's."""
        if isinstance(self.unit, business.DjangoUnit):
            with connections[self.unit.target].cursor() as cursor:
                cursor.execute(statement)
        else:
            self.unit.execute(statement.replace(":", r"\:"))


@pytest.mark.one_in(2)
def test_each_setting_of_the_session(make, watched, url, role):
    """Set before the transaction begins; the first event looks the outbox up under it."""
    application = make("transaction")
    committed = {}
    with application.unit() as unit:
        caller = Caller(application, unit)
        for (setting, value), end in itertools.product(SETTINGS.items(), ["commit", "rollback"]):
            name, value = f"{setting}={value} {end}", value.format(role=role)
            caller.execute(f"SET {setting} = {value if ', ' in value else repr(value)}")
            unit.commit()
            caller.execute(
                "SET LOCAL search_path = nowhere, public"
                if setting == "search_path"  # its own table is found there
                else "SELECT 1"  # a transaction has begun
            )
            statements._found.clear()
            caller.emit(name, writes=setting not in APART)
            kept = "nowhere, public" if setting == "search_path" else value
            caller.execute(
                f"SELECT 1 / (CASE current_setting('{setting.strip()}') WHEN '{kept}' THEN 1"
                " ELSE 0 END)"
            )
            getattr(unit, end)()
            if end == "commit":
                committed[name] = APART.get(setting)
            for reset in ("RESET ROLE", "RESET ALL"):
                caller.execute(reset)
            unit.commit()
    found = {event.attributes["n"]: event.attributes for event in watched.events()}
    assert found.keys() == committed.keys()
    for name, reason in committed.items():
        told = {} if reason is None else {"sidelight.not_joined": reason}
        assert found[name] == {"n": name, **ODD, **told}
    assert EMITTER.losses == {f"not joined: {reason}": 1 for reason in APART.values()}
    assert {name for name in committed if name.partition("=")[0] not in APART} == {
        name for name in business.committed(url) if name.endswith("commit")
    }

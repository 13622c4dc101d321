"""Parse the URL of a database once, for relays, questions and outboxes alike.

Relays do not import SQLAlchemy, which is slow to import. The rules are those of its URLs: what is
escaped with "%" is unescaped, and a parameter of the URL is one of libpq's.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote

from sidelight.exceptions import ConfigurationError
from sidelight.settings import public_url, require_escaped, sqlite_path
from sidelight.store.tables import Backend

_URL: Final = re.compile(
    r"(?P<scheme>\w+)(?:\+\w+)?://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<hosts>[^/?]*)"
    r"(?:/(?P<dbname>[^?]*))?"
    r"(?:\?(?P<query>.*))?"
)
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[^\]]+)\]|(?P<host>[^:]*))(?::(?P<port>[0-9]*))?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, and how to log in.

    Attributes:
        backend: which database it is.
        shown: the URL without the password.
        path: of a SQLite file; empty for PostgreSQL.
        parameters: of libpq, as the URL names them.
    """

    backend: Backend
    shown: str
    path: Path
    parameters: Mapping[str, str]

    @property
    def place(self) -> tuple[object, ...]:
        """Identifies the database and the login to it, whatever the other parameters."""
        given = self.parameters
        names = ("host", "hostaddr", "port", "dbname", "user", "service")
        return (self.backend, self.path, *(given.get(name, _USUAL.get(name)) for name in names))


_USUAL: Final = {"port": "5432"}


def parse_url(url: str, setting: str = "store") -> Address:
    """Parse a database's URL.

    Raises:
        ConfigurationError: the text is not a URL, its password is not escaped, or it names a
            database that is not supported.
    """
    if sqlite_path(url) is None:
        require_escaped(setting, url)
    parsed = _URL.match(url)
    if parsed is None or (hosts := _hosts(parsed["hosts"])) is None:
        raise ConfigurationError(
            setting=setting,
            problem=f"{public_url(url)!r} is not a URL",
            remedy="write sqlite:///events.db or postgresql://host/database",
        )
    if parsed["scheme"] == "postgresql":
        return _server(url, parsed, hosts, setting)
    if parsed["scheme"] != "sqlite":
        raise ConfigurationError(
            setting=setting,
            problem=f"{parsed['scheme']} is not supported",
            remedy="use sqlite:///… or postgresql://…",
        )
    path = sqlite_path(url)
    if path is None or path.name in {"", ":memory:"}:
        raise ConfigurationError(
            setting=setting,
            problem="a SQLite store in memory is lost with its connection",
            remedy="name a file: sqlite:///events.db",
        )
    return Address("sqlite", url, path, {})


def _hosts(text: str) -> tuple[str, str] | None:
    """Split ``host:port,[ipv6]:port`` into libpq's lists; None where a part is no host."""
    parts = [_HOST.fullmatch(part) for part in text.split(",")]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    ports = ",".join(part["port"] or "" for part in found)
    return ",".join(part["ipv6"] or part["host"] for part in found), ports.strip(",") and ports


def _server(url: str, parsed: re.Match[str], hosts: tuple[str, str], setting: str) -> Address:
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigurationError(
            setting=setting,
            problem="PostgreSQL needs psycopg",
            remedy="pip install 'sidelight[postgres]'",
        )
    given = {
        "host": hosts[0],
        "port": hosts[1],
        "dbname": unquote(parsed["dbname"] or ""),
        "user": unquote(parsed["user"] or ""),
        "password": unquote(parsed["password"] or ""),
    }
    parameters = {name: value for name, value in given.items() if value}
    query = parse_qs(parsed["query"] or "")
    parameters |= {name: ",".join(values) for name, values in query.items()}
    if "port" not in query and (named := _hosts(",".join(query.get("host", ())))) and named[1]:
        # host=one:5432&host=two:5433. A host that begins with "/" is the directory of a socket.
        parameters["host"], parameters["port"] = named
    shown = public_url(re.sub(r"^(\w+)\+\w+://", r"\1://", url))
    return Address("postgresql", shown, Path(), parameters)

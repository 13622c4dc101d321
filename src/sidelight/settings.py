"""The settings of a process, from arguments and the environment, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NoReturn
from urllib.parse import unquote

import msgspec

from sidelight.exceptions import ConfigurationError
from sidelight.host import HAS_FILE_LOCKS, IN_MEMORY, state_directory
from sidelight.record import default_spool, spool_beside, wrong_port

RelayMode = Literal["thread", "external"]
Role = Literal["application", "relay"]
_OTLP: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_STREAM: Final = r"kafka://([^/?#\s]+)/([A-Za-z0-9._-]{1,249})(\?mode=\w+)?"
_STREAM_MODES: Final = ("", "?mode=binary", "?mode=structured")
_URL: Final = r"([A-Za-z][\w+.-]*://)([^\s'\"<>]+)"
_USERINFO: Final = r"(^|[/\s'\"=])([^:/@\s'\"=]*):[^@\s/]+@"  # of a text without scheme
_LOGIN: Final = re.compile(r"(?P<user>[^:/@]*):(?P<password>.*)@(?P<hosts>[^@]*)", re.DOTALL)


class Settings(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The configuration of a process.

    Attributes:
        store: the URL of the events store; None where a stream is the only destination.
        stream: the address of a stream; None where there is none.
        names_store: whether the segments name the store. Those of an external relay's application
            do so only where the store was configured, because the relay knows the store.
        is_default_store: whether no code and no variable has named the store.
        spool: the directory of the spool.
        hot: a directory on a tmpfs, where the segment lies that is being written; None for the
            spool's directory.
        otlp_traces, otlp_logs: whether spans and events are exported over OTLP.
        otlp_endpoint: the base URL; None leaves it to ``OTEL_EXPORTER_OTLP_*``.
        outboxes: URLs of the databases whose outboxes are drained.
        relay: "thread" delivers in this process; "external" leaves it to `sidelight relay`.
        spool_limit: the bytes that the spool's directory may hold.
        deadline: the longest time that an awaited emission may take (s).
        strict: raise errors of the instrumentation (for tests).
        role: "relay" for a process that delivers the records of other processes.
        environment: the environment variables.
    """

    store: str | None
    spool: Path
    stream: str | None = None
    hot: str | None = None
    otlp_traces: bool = False
    otlp_logs: bool = False
    otlp_endpoint: str | None = None
    outboxes: tuple[str, ...] = ()
    relay: RelayMode = "thread"
    spool_limit: int = 1024 * 1024 * 1024
    deadline: float = 0.010
    strict: bool = False
    role: Role = "application"
    names_store: bool = True
    is_default_store: bool = False
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the settings agree.

        Raises:
            ConfigurationError: they do not.
        """
        path = None if self.store is None else sqlite_path(self.store)
        files = (sqlite_path(url) for url in self.outboxes)
        # `Path.resolve` raises a RuntimeError for a loop of links, by Python's version.
        real = {os.path.realpath(each) for each in files if each is not None}
        if path is not None and os.path.realpath(path) in real:
            # The business would wait for the store's transactions, and time out.
            remedy = "give the store a file of its own: SQLite has one writer at a time"
            _refuse("outboxes", f"{self.store} is also the events store", remedy)
        if self.outboxes and not HAS_FILE_LOCKS:
            remedy = "move their events by `sidelight relay --outbox URL` on Linux or macOS"
            _refuse("outboxes", IN_MEMORY, remedy)

    __repr__ = object.__repr__  # the environment, or a URL, may hold passwords

    @property
    def named_store(self) -> str:
        """The store as a header names it; "" where there is none."""
        return "" if self.store is None else public_url(self.store)

    @property
    def destination(self) -> str:
        """The store and the stream in words, without passwords."""
        return " and ".join(filter(None, (self.named_store, self.stream)))

    def require_store(self) -> str:
        """Return the URL of the events store.

        Raises:
            ConfigurationError: there is none.
        """
        if self.store is None:
            remedy = "name the store that `sidelight consume` fills: --store or SIDELIGHT_STORE"
            _refuse("store", f"events go to {self.stream} only", remedy)
        return self.store

    @property
    def sinks(self) -> tuple[str, ...]:
        """The names of the sinks that must have a record before the spool may delete it.

        The first one acknowledges records: the store, or else the stream.
        """
        wanted = {
            "store": self.store is not None,
            "stream": self.stream is not None,
            "traces": self.otlp_traces,
            "logs": self.otlp_logs,
        }
        return tuple(name for name, on in wanted.items() if on)


def settle(
    store: str | None = None,
    *,
    stream: str | None = None,
    otlp: bool | str | None = None,
    spool: str | os.PathLike[str] | None = None,
    hot: str | os.PathLike[str] | None = None,
    outboxes: Sequence[str] | None = None,
    relay: RelayMode = "thread",
    spool_limit: int = 1024 * 1024 * 1024,
    deadline: float = 0.010,
    strict: bool | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Complete the settings from the environment, and check them.

    Raises:
        ConfigurationError: a setting is not valid; the error names the setting and the remedy.
    """
    env = dict(os.environ if environment is None else environment)
    if not isinstance(store, str | None):
        _refuse("store", f"{store!r} is not text", 'write "sqlite:///events.db"')
    spool = _directory("spool", spool) or env.get("SIDELIGHT_SPOOL")
    hot = _directory("hot", hot) or env.get("SIDELIGHT_HOT") or None
    if not isinstance(strict, bool | None):
        _refuse("strict", f"{strict!r} is neither True nor False", "give one of them")
    named = store or env.get("SIDELIGHT_STORE")
    stream = env.get("SIDELIGHT_STREAM") if stream in (None, "") else stream
    stream_address = None if stream in (None, "") else stream_url(stream)
    url = None if stream_address and not named else _database(named or default_store())
    if relay not in ("thread", "external"):
        _refuse("relay", f"{relay!r} is unknown", 'use "thread" or "external"')
    if relay == "external" and not HAS_FILE_LOCKS:
        _refuse("relay", IN_MEMORY, 'use relay="thread"')
    for name, number, low, high, remedy in (
        ("deadline", deadline, 0.006, 1.0, "give seconds between 0.006 and 1"),  # 5 ms: the GIL's
        ("spool_limit", spool_limit, 8 * 1024 * 1024, float("inf"), "give 8 MiB or more"),
    ):
        if isinstance(number, bool) or not isinstance(number, int | float):
            _refuse(name, f"{number!r} is not a number", remedy)
        if not low <= number <= high or number == float("inf"):  # NaN compares with nothing
            _refuse(name, f"{number} is out of range", remedy)
    _check_endpoint(otlp)
    traces, logs = _signals(otlp, env)
    return Settings(
        store=url,
        stream=stream_address,
        spool=Path(spool or _default_spool(url or f"{stream_address}")).absolute(),
        hot=hot,
        otlp_traces=traces,
        otlp_logs=logs,
        otlp_endpoint=otlp if isinstance(otlp, str) else None,
        outboxes=_outboxes(outboxes, env),
        relay=relay,
        spool_limit=int(spool_limit),
        deadline=float(deadline),
        strict=is_on("SIDELIGHT_STRICT", env) if strict is None else strict,
        names_store=bool(named) or url is None or relay == "thread",
        is_default_store=url is not None and not named,
        environment=env,
    )


def _directory(setting: str, path: object) -> str | None:
    """Return the path of a directory as text; None where none is given."""
    given = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(given, str | None) or "\0" in (given or ""):
        _refuse(setting, f"{path!r} is not a path", "name a directory")
    return given


def stream_url(url: str) -> str:
    """Check the address of a stream.

    Raises:
        ConfigurationError: it is none.
    """
    remedy = "write kafka://host:9092,host:9092/topic"
    if not isinstance(url, str) or "@" in url:
        problem = "it has a user or a password" if isinstance(url, str) else f"{url!r} is not text"
        _refuse("stream", problem, f"{remedy}, and SIDELIGHT_KAFKA_SASL_PASSWORD for a password")
    found = re.fullmatch(_STREAM, url)
    if found is None or (found[3] or "") not in _STREAM_MODES or found[2] in {".", ".."}:
        _refuse("stream", f"{url!r} names no brokers and topic", remedy)
    return url


def _outboxes(urls: Sequence[str] | None, env: Mapping[str, str]) -> tuple[str, ...]:
    """Normalize the URLs of business databases; the driver in a URL is ignored."""
    if isinstance(urls, str) or not isinstance(urls, Iterable | None):
        _refuse("outboxes", f"{without_password(str(urls))!r} is no list", "give a list of URLs")
    if urls is None:  # a path may have a space, so only one before another URL separates
        text = env.get("SIDELIGHT_OUTBOXES", "").strip()
        urls = re.split(r"[\s,]+(?=[A-Za-z][\w+.-]*://)", text) if text else ()
    return tuple(map(outbox_url, urls))


def outbox_url(url: str) -> str:
    """Normalize the URL of a business database: without a driver, with an absolute path.

    Raises:
        ConfigurationError: such a database cannot have an outbox.
    """
    if not isinstance(url, str):
        _refuse("outboxes", f"{url!r} is not text", "give the URLs of databases")
    return _database(re.sub(r"^(\w+)\+\w+://", r"\1://", url), "outboxes")


def _refuse(setting: str, problem: str, remedy: str) -> NoReturn:
    raise ConfigurationError(setting=setting, problem=problem, remedy=remedy)


def default_store() -> str:
    """Return the default store: a SQLite file in the user's state directory."""
    return f"sqlite:///{state_directory() / 'events.db'}"


def _database(url: str, setting: str = "store") -> str:
    """Check a database's URL, and make its path absolute, because the directory may change."""
    _check_text(setting, url)
    scheme, separator, rest = url.partition("://")
    if not separator:
        hint = f"sqlite:///{url}" if url.endswith((".db", ".sqlite")) else "sqlite:///events.db"
        shown = without_password(url)
        _refuse(setting, f"{shown!r} is not a URL", f"write {hint} or postgresql://host/database")
    backend = scheme.partition("+")[0]
    if backend not in {"sqlite", "postgresql", "postgres"}:
        _refuse(setting, f"{backend} is not supported", "use sqlite:///… or postgresql://…")
    if backend != "sqlite":
        require_escaped(setting, url)
        _check_ports(setting, re.split("[/?]", rest.rpartition("@")[2])[0])
        return url.replace("postgres://", "postgresql://", 1)
    if rest and not rest.startswith("/"):
        _refuse(setting, f"{url!r} names no file", f"write three slashes: sqlite:///{rest}")
    if scheme not in {"sqlite", "sqlite+pysqlite"} or "?" in rest or "%" in rest:
        _refuse(
            setting,
            f"{url!r} has a driver, parameters or escapes",
            "name the file as it is: sqlite:///events.db",
        )
    path = rest.removeprefix("/")
    if path in {"", ":memory:"}:
        _refuse(setting, "a SQLite database in memory ends with its connection", "name a file")
    # Not `Path.is_dir`, which raises where this user may not search a directory above.
    if os.path.isdir(file := Path(path).expanduser().absolute()):  # noqa: PTH112
        _refuse(setting, f"{file} is a directory", "name a file in it")
    return f"sqlite:///{file}"


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite store; None for another store."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def without_password(text: str) -> str:
    """Mask the passwords of the URLs in a text, including misspelt URLs."""
    shown = re.sub(_URL, lambda url: url[1] + _without_password(url[2]), text)
    return re.sub(_USERINFO, r"\1\2:***@", shown)


def public_url(url: str) -> str:
    """Mask the passwords in a store's URL."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{_without_password(rest)}" if separator else url


def outbox_name(url: str) -> str:
    """Return the URL of an outbox as headers name it: without a password."""
    return url if sqlite_path(url) is not None else public_url(url).replace(":***@", "@")


def _without_password(rest: str) -> str:
    """Mask the passwords in the part of a URL behind its scheme.

    A password that was not escaped may hold any character. Hence everything up to the last "@"
    before the parameters is masked, although a part of it may be read as host or path.
    """
    place, mark, parameters = _place_and_parameters(rest)
    if login := _LOGIN.fullmatch(place):
        place = f"{login['user']}:***@{login['hosts']}"
    shown = [_without_value(each) for each in parameters.split("&")]
    return f"{place}{mark}{'&'.join(shown)}"


def _place_and_parameters(rest: str) -> tuple[str, str, str]:
    """Split the part of a URL behind its scheme at the "?", unless that is in the password."""
    place, mark, parameters = rest.partition("?")
    _, colon, secret = place.partition(":")
    if colon and "@" not in place and "@" in parameters and not re.match(r"\d+(/|$)", secret):
        return rest, "", ""
    return place, mark, parameters


def require_escaped(setting: str, url: str) -> None:
    """Refuse a password with an "@", because a driver would take what follows for the host.

    Its error would then name a part of the password as a host that does not exist.

    Raises:
        ConfigurationError: the password of the URL has an "@" that is not escaped.
    """
    login = _LOGIN.fullmatch(_place_and_parameters(url.partition("://")[2])[0])
    if login is not None and "@" in login["password"]:
        remedy = "write %40 for each @ of the password"
        _refuse(setting, f"{public_url(url)!r} has an @ in its password", remedy)


def _without_value(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}=***" if equals and "password" in unquote(name).lower() else parameter


def _default_spool(url: str) -> Path:
    if path := sqlite_path(url):
        return spool_beside(path)
    return state_directory() / default_spool(url, public_url(url))


def _signals(otlp: bool | str | None, env: Mapping[str, str]) -> tuple[bool, bool]:
    """Return whether spans and events are exported, by the rules of the OTEL_* variables."""
    if otlp is False or env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False, False

    def wanted(signal: str) -> bool:
        exporters = env.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() or "otlp"
        if not any(name.strip().startswith("otlp") for name in exporters.split(",")):
            return False  # "none", or another exporter
        return bool(otlp or env.get(_OTLP) or env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))

    return wanted("TRACES"), wanted("LOGS")


def _check_text(setting: str, text: str) -> None:
    """Refuse what no URL has: a space around it, a line break or another control character."""
    if text != text.strip() or not text.isprintable():
        shown = without_password(text)
        _refuse(setting, f"{shown!r} has a space around it or a control character", "remove that")


def _check_endpoint(otlp: bool | str | None) -> None:
    if not isinstance(otlp, bool | str | None):
        _refuse("otlp", f"{otlp!r} is neither a URL nor a bool", "write http://localhost:4318")
    if isinstance(otlp, str):
        _check_text("otlp", otlp)
        scheme, _, place = otlp.partition("://")
        hosts = re.split("[/?#]", place)[0]
        host = hosts.rpartition("@")[2].partition(":")[0]
        if scheme.lower() not in {"http", "https"} or not host or "#" in place:
            _refuse("otlp", f"{without_password(otlp)!r} is no URL", "write http://localhost:4318")
        _check_ports("otlp", hosts.rpartition("@")[2])


def _check_ports(setting: str, hosts: str) -> None:
    if port := wrong_port(hosts):
        _refuse(setting, f"{port!r} is no port", "give a number from 1 to 65535")


_OFF, _ON = frozenset({"", "0", "false", "no", "off"}), frozenset({"1", "true", "yes", "on"})


def is_on(variable: str, environment: Mapping[str, str]) -> bool:
    """Return whether a variable of the environment says yes.

    Raises:
        ConfigurationError: it says neither yes nor no.
    """
    text = environment.get(variable, "").strip().lower()
    if text not in _OFF | _ON:
        _refuse(variable, f"{text!r} is neither yes nor no", "write 1 or 0")
    return text in _ON


def disabled() -> bool:
    """Return whether ``SIDELIGHT_DISABLED`` turns off all instrumentation."""
    return os.environ.get("SIDELIGHT_DISABLED", "").strip().lower() not in _OFF

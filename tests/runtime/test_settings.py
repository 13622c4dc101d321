"""What cannot be configured is refused at once, with the setting and the remedy."""

import inspect
import math

import pytest
from tests.support.platforms import needs_spool_files

import sidelight
from sidelight.exceptions import ConfigurationError
from sidelight.settings import disabled, settle

STORE = "sqlite:////tmp/events.db"


@pytest.mark.parametrize(
    ("named", "setting", "told"),
    [
        ({"store": 7}, "store", "is not text"),
        ({"store": "mysql://host/shop"}, "store", "postgresql://"),
        ({"relay": "both"}, "relay", '"thread" or "external"'),
        ({"deadline": 0.001}, "deadline", "between 0.006 and 1"),
        ({"deadline": "soon"}, "deadline", "is not a number"),
        ({"spool_limit": 1000}, "spool_limit", "8 MiB or more"),
        ({"relay": ["thread"]}, "relay", '"thread" or "external"'),
        ({"store": "sqlite:////tmp/events.db\n"}, "store", "a control character; remove that"),
        ({"store": " sqlite:////tmp/events.db"}, "store", "a space around it"),
        ({"store": "sqlite:////tmp"}, "store", "/tmp is a directory; name a file in it"),
        ({"store": "postgresql://h:port/d"}, "store", "'port' is no port"),
        ({"store": "postgresql://a:5432,b:99999/d"}, "store", "'99999' is no port; give a number"),
        ({"store": "postgresql://u:p@[::1]:0/d"}, "store", "'0' is no port"),
        ({"store": "postgresql://u:a@b@h/d"}, "store", "write %40 for each @ of the password"),
        ({"store": "postgresql://u:a@b/c@h/d"}, "store", "write %40"),
        ({"store": "postgresql://u:a?b@c@h/d"}, "store", "write %40"),
        ({"outboxes": ["postgresql+psycopg://u:a@b@h/d"]}, "outboxes", "write %40"),
        ({"deadline": True}, "deadline", "is not a number; give seconds"),
        ({"deadline": math.nan}, "deadline", "nan is out of range"),
        ({"spool_limit": math.nan}, "spool_limit", "8 MiB or more"),
        ({"spool_limit": math.inf}, "spool_limit", "8 MiB or more"),
        ({"spool_limit": True}, "spool_limit", "is not a number"),
        ({"spool": 3}, "spool", "3 is not a path; name a directory"),
        ({"spool": "a\0b"}, "spool", "is not a path"),
        ({"strict": "no"}, "strict", "'no' is neither True nor False"),
        ({"otlp": "collector:4318"}, "otlp", "http://localhost:4318"),
        ({"otlp": ""}, "otlp", "http://localhost:4318"),
        ({"otlp": 1}, "otlp", "1 is neither a URL nor a bool"),
        ({"otlp": "http://"}, "otlp", "http://localhost:4318"),
        ({"otlp": "http://:4318"}, "otlp", "http://localhost:4318"),
        ({"otlp": "http://h:99999"}, "otlp", "'99999' is no port"),
        ({"otlp": "http://h:4318 "}, "otlp", "a space around it"),
        ({"otlp": "http://h/#x"}, "otlp", "is no URL"),
        ({"outboxes": [None]}, "outboxes", "None is not text; give the URLs"),
        ({"environment": {"SIDELIGHT_STRICT": "maybe"}}, "SIDELIGHT_STRICT", "write 1 or 0"),
        ({"outboxes": "sqlite:///shop.db"}, "outboxes", "give a list"),
        ({"outboxes": ["mysql://host/shop"]}, "outboxes", "postgresql://"),
        ({"outboxes": [STORE]}, "outboxes", "a file of its own"),
        ({"outboxes": ["sqlite+aiosqlite:////tmp/events.db"]}, "outboxes", "a file of its own"),
    ],
    ids=str,
)
def test_refused(named, setting, told):
    with pytest.raises(ConfigurationError, match=told) as met:
        settle(**{"store": STORE, "environment": {}, **named})
    assert str(met.value).startswith(setting)


WRONG_TYPES = (3, 0, True, 1.5, b"x", ["a"], [3], {"a": 1}, ..., str)
FITTING = {
    "otlp": (bool,),
    "strict": (bool,),
    "spool_limit": (int, float),
    "deadline": (int, float),
}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (setting, value)
        for setting in inspect.signature(sidelight.configure).parameters
        for value in WRONG_TYPES
        if type(value) not in FITTING.get(setting, ())
    ],
    ids=str,
)
def test_a_value_of_a_wrong_type_is_refused(setting, value):
    with pytest.raises(ConfigurationError) as met:
        sidelight.configure(**{"store": STORE, setting: value})
    assert str(met.value).startswith(setting)


def test_a_password_is_not_told():
    with pytest.raises(ConfigurationError) as met:
        settle(STORE, outboxes="postgresql://u:secret@host/shop", environment={})
    assert "secret" not in str(met.value)


def test_a_postgresql_may_be_both():
    url = "postgresql://host/shop"
    assert settle(url, outboxes=[url], environment={}).outboxes == (url,)


@needs_spool_files
@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", ()),
        (" sqlite:////srv/my app/shop.db ", ("sqlite:////srv/my app/shop.db",)),
        ("sqlite:////srv/a.db,sqlite:////srv/b.db", ("sqlite:////srv/a.db", "sqlite:////srv/b.db")),
        (
            "postgresql+psycopg://a:5432,b:5432/shop\nsqlite:////srv/b,c.db",
            ("postgresql://a:5432,b:5432/shop", "sqlite:////srv/b,c.db"),
        ),
    ],
)
def test_outboxes_of_the_environment(text, urls):
    assert settle(STORE, environment={"SIDELIGHT_OUTBOXES": text}).outboxes == urls


@pytest.mark.parametrize("text", ["", "0", "false", "No", " off "])
@pytest.mark.parametrize(("variable", "ask"), [
    ("SIDELIGHT_STRICT", lambda: settle(STORE).strict),
    ("SIDELIGHT_DISABLED", disabled),
])  # fmt: skip
def test_switches_of_the_environment(monkeypatch, variable, ask, text):
    monkeypatch.setenv(variable, text)
    assert ask() is False
    monkeypatch.setenv(variable, "True")
    assert ask() is True


@pytest.mark.parametrize(
    "named",
    [
        {"store": "postgresql://u:p%40ss@a:5432,[::1]:5433/d?target_session_attrs=any"},
        {"store": "postgresql:///d?host=/var/run/postgresql"},
        {"otlp": "https://[::1]:4318/base"},
        {"otlp": True},
        {"spool": "a directory"},
        {"spool_limit": 2**24 + 0.5},
    ],
    ids=str,
)
def test_accepted(named):
    settings = settle(**{"store": STORE, "environment": {}, **named})
    assert isinstance(settings.spool_limit, int)
    if "store" in named:
        assert settings.store == named["store"]

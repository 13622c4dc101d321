"""What cannot be configured is refused at once, with the setting and the remedy."""

import pytest

from sidelight.exceptions import ConfigurationError
from sidelight.settings import settle

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
        ({"otlp": "collector:4318"}, "otlp", "http://localhost:4318"),
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


def test_a_password_is_not_told():
    with pytest.raises(ConfigurationError) as met:
        settle(STORE, outboxes="postgresql://u:secret@host/shop", environment={})
    assert "secret" not in str(met.value)


def test_a_postgresql_may_be_both():
    url = "postgresql://host/shop"
    assert settle(url, outboxes=[url], environment={}).outboxes == (url,)

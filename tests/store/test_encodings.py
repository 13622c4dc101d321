"""PostgreSQL databases that are not UTF8."""

from contextlib import closing

import pytest
from tests.support.postgres import new_database
from tests.support.stored import NOON, exact, record

from sidelight import Store
from sidelight.exceptions import SinkRefusedError
from sidelight.store.sink import StoreSink

TEXT = "漢字 € ü"
PLAIN, FOREIGN = (
    record(artifact="a"),
    record("kanji", NOON + 1, artifact=TEXT, attributes={"text": TEXT}),
)


@pytest.fixture(params=["UTF8", "SQL_ASCII", "LATIN1"])
def encoding(request):
    return request.param


@pytest.fixture
def url(encoding):
    return new_database(encoding=encoding)


@pytest.mark.parametrize("asked", ["", "?client_encoding=latin1"])
def test_text_is_stored_or_the_record_is_refused(url, encoding, asked):
    with closing(StoreSink(url + asked)) as sink:
        sink.write([PLAIN], {})
        if encoding == "LATIN1":
            with pytest.raises(SinkRefusedError, match=r"has no equivalent in encoding .LATIN1"):
                sink.write([FOREIGN], {})
        else:
            sink.write([FOREIGN], {})
    found = exact(url)
    assert found[0].artifact_id == "a"
    assert [event.attributes for event in found[1:]] == [{"text": TEXT}] * (encoding != "LATIN1")
    with Store(url + asked) as opened:
        assert opened.encoding() == encoding
        assert encoding == "LATIN1" or len(opened.timeline(TEXT)) == 1

"""`make demo` ends with the commands that show more."""

import re
from contextlib import closing

import pytest
import typer
from tests.support.stored import deliver, record

from sidelight.store import StoreSink
from voice_notes import demo


def test_the_page_is_named_as_such(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*command):
        if "voice_notes" in command:
            with closing(StoreSink(demo.STORE)) as sink:
                deliver(sink, [record()])
        return 0

    monkeypatch.setattr(demo, "run", run)
    with pytest.raises(typer.Exit):
        demo.demo()
    opens = (
        r"Open the pages of the store in a browser with\n +\S*sidelight ui --store sqlite:///demo"
    )
    said = capsys.readouterr().out
    assert re.search(opens, said)
    assert "more emissions than events" in said

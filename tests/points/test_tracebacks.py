"""A refusal is told at the line that it is about: no frame of sidelight comes behind it."""

import os
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel

import sidelight
from sidelight import SidelightError, arg, catalogue, choose, emits, result
from sidelight.exceptions import QueryError
from sidelight.testing import capture

HERE = Path(__file__).name
OWN = str(Path(sidelight.__file__).parent) + os.sep


def decorate(*arguments, **named):
    @emits(*arguments, **named)
    def function(artifact, session=None):
        pass


def recorded(**named):
    """Emit in strict mode, in which the guard raises."""
    with capture():
        sidelight.emit("made", **named)


def generators():
    def generator():
        yield

    sidelight.with_context(generator)


def declared_twice():
    catalogue.event("told_twice")(type("A", (BaseModel,), {}))
    catalogue.event("told_twice")(type("B", (BaseModel,), {}))


REFUSALS = {
    "parameter": lambda _: decorate("made", artifact_id=arg.artefact),
    "position": lambda _: decorate("made", artifact_id=arg[7]),
    "phase": lambda _: decorate(start="begun", artifact_id=result.id),
    "parentheses": lambda _: emits(print),
    "no event": lambda _: decorate(),
    "no name": lambda _: decorate("no name"),
    "mode": lambda _: decorate("made", mode="awiated"),
    "callable": lambda _: decorate("made", artifact_id=lambda nothing: nothing),
    "class": lambda _: emits("made")(BaseModel),
    "property": lambda _: emits("made")(property(print)),
    "choice": lambda _: decorate(choose(arg.status, {"a": "made"})),
    "compared": lambda _: arg.status == "done",
    "condition": lambda _: not arg.status,
    "called": lambda _: arg.status(),
    "iterated": lambda _: [*arg.status],
    "setting": lambda _: sidelight.configure("mysql://h/d"),
    "limit": lambda _: sidelight.configure(spool_limit=-1),
    "map": lambda path: sidelight.weave(path),
    "no map": lambda path: sidelight.weave(path.with_name("none.toml")),
    "event type": lambda _: catalogue.event("no name"),
    "no model": lambda _: catalogue.event("made")(int),
    "twice": lambda _: declared_twice(),
    "expectation": lambda _: catalogue.expect(after="a", one_of="b", within="soon"),
    "context": lambda _: generators(),
    "bound": lambda _: sidelight.bind(occurred_at=1),
    "emitted": lambda _: recorded(artefact_id=1),
    "emitted value": lambda _: recorded(size=arg.size),
    "joined": lambda _: recorded(transaction=object(), strict=True),
}


@pytest.fixture
def map_file(tmp_path):
    path = tmp_path / "sidelight.toml"
    path.write_text(
        "[[point]]\nfunction = 'json:loads'\nsuccess = 'made'\n"
        "artifact_id = 'arg.nothing_like_this'\n"
    )
    return path


@pytest.mark.usefixtures("empty_catalogue")
@pytest.mark.parametrize("kind", REFUSALS)
def test_the_traceback_ends_at_the_callers_line(kind, map_file):
    with pytest.raises(SidelightError) as raised:
        REFUSALS[kind](map_file)
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert frames
    assert [Path(frame.filename).name for frame in frames] == [HERE] * len(frames), frames
    causes = raised.value.__cause__
    while causes is not None:
        inside = traceback.extract_tb(causes.__traceback__)
        assert not [each for each in inside if each.filename.startswith(OWN)], inside
        causes = causes.__cause__


class Odd(Mapping):
    """Attributes of other code, which runs at decoration and fails."""

    def __iter__(self):
        return iter(["size"])

    def __len__(self):
        return 1

    def __getitem__(self, name):
        return query()


def query():
    raise QueryError(argument="a", problem="b", remedy="c")


def test_frames_of_other_code_stay():
    with pytest.raises(QueryError) as raised:
        decorate("made", attributes=Odd())
    frames = [each.name for each in traceback.extract_tb(raised.value.__traceback__)]
    assert frames == ["test_frames_of_other_code_stay", "decorate", "__getitem__", "query"]


def test_errors_of_other_kinds_keep_their_frames(monkeypatch):
    monkeypatch.setattr("sidelight.settings.settle", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError) as raised:
        sidelight.configure()
    assert "configure" in [each.name for each in traceback.extract_tb(raised.value.__traceback__)]


PROGRAM = """
from sidelight import arg, emits

@emits("made", artifact_id=arg.artefact)
def make(artifact):
    pass
"""


PYTEST = ["-m", "pytest", "-q", "-p", "sidelight.testing.pytest_plugin", "program.py"]


@pytest.mark.parametrize("how", [["-m", "program"], PYTEST], ids=len)
def test_a_person_sees_the_line_and_the_remedy(tmp_path, how):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    ended = subprocess.run(
        [sys.executable, *how],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # others' take seconds
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = ended.stdout + ended.stderr
    assert "make has no parameter artefact; did you mean artifact?" in told
    assert '@emits("made", artifact_id=arg.artefact)' in told
    assert "src/sidelight" not in told.replace(str(tmp_path), ""), told


def test_an_import_that_does_not_fit_its_map(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shop_of_tracebacks.py").write_text("def sell(order):\n    pass\n")
    path = tmp_path / "sidelight.toml"
    path.write_text(
        "[[point]]\nfunction = 'shop_of_tracebacks:sell'\nsuccess = 'sold'\n"
        "artifact_id = 'arg.ordre'\n"
    )
    with sidelight.weave(path), pytest.raises(SidelightError) as raised:
        import shop_of_tracebacks  # noqa: F401, PLC0415
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert not [each for each in frames if each.filename.startswith(OWN)], frames

"""A function that is called once the program has imported a module."""

import importlib.util
import sys

import pytest

from sidelight.host import imported, when_imported


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "awaited_module.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.meta_path[:]
    yield "awaited_module"
    sys.modules.pop("awaited_module", None)
    sys.meta_path[:] = before


def test_the_latest_function_is_called_once_behind_the_import(module):
    called = []
    when_imported(module, lambda: called.append("first"))
    when_imported(module, lambda: called.append(sys.modules[module].VALUE))
    before = len(sys.meta_path)
    assert importlib.util.find_spec(module) is not None  # which is no import
    assert called == []
    found = importlib.import_module(module)
    assert called == [1]
    assert len(sys.meta_path) == before - 1
    assert type(found.__loader__).__module__ == "_frozen_importlib_external"
    assert found.__spec__.loader is found.__loader__
    importlib.reload(found)
    assert called == [1]


def test_a_module_that_another_thread_imports_meanwhile_calls(module, monkeypatch):
    class Path(list):
        def insert(self, *arguments):
            importlib.import_module(module)
            super().insert(*arguments)

    monkeypatch.setattr(sys, "meta_path", Path(sys.meta_path))
    called, before = [], len(sys.meta_path)
    when_imported(module, lambda: called.append(1))
    assert called == [1]
    assert len(sys.meta_path) == before


def test_a_module_is_not_imported_while_it_lacks_names(tmp_path, module):
    (tmp_path / "awaited_module.py").write_text(
        "from sidelight.host import imported\nFOUND = imported(__name__)\n"
    )
    found = importlib.import_module(module)
    assert found.FOUND is None
    assert imported(module) is found


def test_a_module_that_is_imported_already_calls_at_once(module):
    importlib.import_module(module)
    called = []
    when_imported(module, lambda: called.append(1))
    assert called == [1]


def test_an_import_that_fails_fails_as_before_and_the_next_one_calls(tmp_path, module):
    (tmp_path / "awaited_module.py").write_text("raise RuntimeError('broken')\n")
    called = []
    when_imported(module, lambda: called.append(1))
    with pytest.raises(RuntimeError, match="broken"):
        importlib.import_module(module)
    assert called == []
    (tmp_path / "awaited_module.py").write_text("REPAIRED = 1\n")
    importlib.invalidate_caches()
    importlib.import_module(module)
    assert called == [1]


class AsksTheOthers:
    """A finder that asks every finder in its turn, as import hooks of tracers do."""

    def find_spec(self, name, path=None, target=None):
        asked = (finder.find_spec for finder in sys.meta_path if finder is not self)
        return next((spec for find in asked if (spec := find(name, path, target))), None)


def test_finders_that_ask_each_other_end(module):
    called = []
    when_imported(module, lambda: called.append(1))
    sys.meta_path.insert(0, AsksTheOthers())
    importlib.import_module(module)
    assert called == [1]

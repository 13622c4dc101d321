"""The shape of the house: imports run one way, modules stay small, the face is sorted."""

import ast
from pathlib import Path

import pytest

import sidelight

ROOT = Path(sidelight.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py"))

#: From the ground up: a module may import, at its top, only from lines above its own.
LAYERS = [
    {
        "version",
        "exceptions",
        "interrupt",
        "source",
        "kinds",
        "late",
        "threads",
        "loops",
        "disk",
        "trouble",
    },
    {
        "fields",
        "signature",
        "plain",
        "record",
        "sampling",
        "adapter",
        "budget",
        "settings",
        "sqlite",
        "postgres",
        "partitions",
        "upgrades",
        "times",
    },
    {
        "points",
        "quarantine",
        "salvage",
        "receipt",
        "sink",
        "header",
        "allocation",
        "event",
        "schema",
        "lightspan",
        "templates",
    },
    {"segment", "scanner", "directory", "names", "supply", "sieve"},
    {"adoption"},
    {"spool", "emitter", "selection", "store", "mapfile", "pruning"},
    {"described", "span", "transaction", "waiting", "worker", "keeper", "ledger"},
    {"capture", "mapwriter"},
    {"direct", "wrapper", "carried", "relay", "metrics"},
    {"decorator"},
    {"weaving"},
    {"runtime"},
    {"forks"},
    {"__init__"},
]
#: Nothing in the core imports these at its top.
LEAVES = {
    "bootstrap",
    *(
        "sinks",
        "static",
        "codemod",
        "stacks",
        "outbox",
        "cli",
        "testing",
        "otel",
        "sdkspan",
        "__main__",
    ),
    "pytest_plugin",
}


def name_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports_at_the_top(path):
    """What a module imports when it is imported (not what its functions do, nor its types)."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sidelight"):
            module = (node.module or "").split(".")
            if len(module) > 1:
                yield module[1]
            else:
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("sidelight."))


def layer(name):
    return next((i for i, names in enumerate(LAYERS) if name in names), None)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    own = name_of(path)
    if own in LEAVES:
        return
    assert layer(own) is not None, f"{own} has no place in LAYERS"
    for imported in imports_at_the_top(path):
        assert imported not in LEAVES, f"{own} imports the leaf {imported}"
        assert layer(imported) is not None, f"{imported} has no place in LAYERS"
        assert layer(imported) < layer(own) or _same_layer_is_acyclic(own, imported)


def _same_layer_is_acyclic(own, imported):
    """Within a line, as long as the other does not import back."""
    path = ROOT / f"{imported}.py"
    return layer(own) == layer(imported) and own not in set(imports_at_the_top(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_face_is_sorted_and_whole():
    assert sidelight.__all__ == sorted(sidelight.__all__)
    for name in sidelight.__all__:
        assert getattr(sidelight, name) is not None

"""Nine files have twelve points. Their only instrumentation is decorators and one import."""

import ast
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest
from tests.docs.pages import every_page
from tests.support.commands import sidelight

import voice_notes
from sidelight.maps.listing import listed_point
from sidelight.maps.static.decorated import read_points
from sidelight.maps.static.names import Codebase
from sidelight.points.expressions import Expression
from sidelight.points.registry import POINTS

SCHEDULED = {
    "artifacts:create_artifact": {"artifact_received"},
    "artifacts:update_artifact_status": {
        "artifact_status_changed",
        "artifact_completed",
        "artifact_failed",
    },
    "transcripts:create_transcript": {"transcription_completed"},
    "claims:store_claims": {"claims_extracted"},
    "entity_resolutions:store_resolutions": {
        "entity_resolution_completed",
        "entity_resolution_needs_disambiguation",
    },
    "drafts:create_drafts": {"drafts_generated"},
    "drafts:confirm_draft": {"draft_confirmed"},
    "drafts:reject_draft": {"draft_rejected"},
}
AWAITED = {
    "actions.voice_notes:transcribe_audio": {"transcription_started", "transcription_failed"},
    "actions.claims_extraction:extract_claims": {
        "claims_extraction_started",
        "claims_extraction_failed",
    },
    "actions.entity_resolution:resolve_entities": {"entity_resolution_started"},
    "actions.draft_generation:generate_drafts": {"draft_generation_started"},
}
MODULES = sorted({point.partition(":")[0] for point in (*SCHEDULED, *AWAITED)})


@pytest.mark.parametrize(("mode", "points"), [("scheduled", SCHEDULED), ("awaited", AWAITED)])
def test_twelve_points(mode, points):
    for module in MODULES:
        import_module(f"voice_notes.{module}")
    found = {
        point.path.removeprefix("voice_notes."): {
            kind
            for declaration in point.declarations
            for phase in ("start", "success", "failure")
            for kind in declaration.types(phase)
        }
        for point in POINTS
        if point.module.startswith("voice_notes.")
        and {declaration.mode for declaration in point.declarations} == {mode}
    }
    assert found == points


def test_a_map_can_say_all_that_they_capture():
    """A field is an expression or a named function, because a map cannot hold a lambda."""
    for module in MODULES:
        import_module(f"voice_notes.{module}")
    for point in POINTS:
        if not point.module.startswith("voice_notes."):
            continue
        for declaration in point.declarations:
            for name, value in declaration.fields.items():
                if value is not None and not isinstance(value, Expression):
                    path = f"{value.__module__}:{value.__qualname__}"
                    assert resolve_name(path) is value, f"{point.path}: {name}"


def test_its_source_shows_what_importing_it_shows():
    for module in MODULES:
        import_module(f"voice_notes.{module}")
    reading = read_points(Codebase(["voice_notes"]), ["voice_notes"])
    assert (reading.problems, reading.remarks) == ([], [])
    assert len(reading.points) == 12
    for point in reading.points:
        imported = listed_point(POINTS.get(point.path))
        assert (point.file, point.line) == (imported.file, imported.line)
        assert point.kind == imported.kind
        (read,), (known,) = point.declarations, imported.declarations
        assert read.facts() == known.facts()


def test_the_picture_in_the_documentation_is_the_code():
    page = next(page for page in every_page() if page.name == "docs/how-to/voice-notes.md")
    (drawn,) = (block.text for block in page.blocks if block.language == "mermaid")
    assert sidelight("points", "voice_notes", "--mermaid").out == drawn


@pytest.mark.parametrize("module", MODULES)
def test_only_decorators(module):
    """Without the decorators and their import, a file has no name of sidelight."""
    path = Path(voice_notes.__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text())
    imported = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "sidelight":
            imported |= {alias.name for alias in node.names}
    assert "emits" in imported
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.decorator_list.clear()
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom)]
    left = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not left & (imported | {"sidelight"})

"""Which Collector the tests take, and that it is built once, for what the manifest says now."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import collector_build
from tests.support.collector_build import (
    MANIFEST,
    CollectorBuildError,
    build_collector,
    cache_directory,
    collector_binary,
)

ROOT = Path(__file__).parents[2]
# Does what Go and the Collector's builder leave behind, and tells what it was asked for.
GO = """#!/bin/sh
echo "$@" >> "$GO_CALLS"
case "$1 $2" in
"install "*) mkdir -p "$GOBIN"; printf '#!/bin/sh\\nmkdir sources\\n' > "$GOBIN/builder"
             chmod +x "$GOBIN/builder" ;;
"build "*)   sleep 0.2
             while [ "$1" != -o ]; do shift; done
             printf '#!/bin/sh\\n' > "$2"; chmod +x "$2" ;;
esac
exit "${GO_STATUS:-0}"
"""


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch) -> Path:
    """A PATH of the test's own, with what the stand-in for Go needs."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/bin:/usr/bin")
    monkeypatch.setattr(collector_build.shutil, "which", lambda name: which(directory, name))
    monkeypatch.delenv("SIDELIGHT_BUILD_COLLECTOR", raising=False)
    monkeypatch.setenv("GO_CALLS", str(tmp_path / "calls"))
    return directory


@pytest.fixture
def go(path) -> Path:
    return program(path / "go", GO)


def which(directory: Path, name: str) -> str | None:
    return str(directory / name) if (directory / name).exists() else None


def program(file: Path, text: str = "#!/bin/sh\n") -> Path:
    file.write_text(text)
    file.chmod(0o755)
    return file


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_there_may_be_none(tmp_path):
    assert collector_binary(tmp_path / "cache") is None


def test_the_installed_one_wins(tmp_path, path, go):
    cache = tmp_path / "cache"
    build_collector(cache)
    installed = program(path / "otelcol-contrib")
    assert collector_binary(cache) == installed


def test_none_is_built_without_being_asked_for(tmp_path, go):
    assert collector_binary(tmp_path / "cache") is None
    assert not (tmp_path / "calls").exists()


def test_it_is_built_when_the_environment_says_so_and_then_kept(tmp_path, go, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("SIDELIGHT_BUILD_COLLECTOR", "1")
    binary = collector_binary(cache)
    assert binary == cache / "otelcol-0.165.0" / "otelcol-sidelight"
    assert os.access(binary, os.X_OK)
    made = calls(tmp_path)
    assert made[0] == "install go.opentelemetry.io/collector/cmd/builder@v0.165.0"
    assert "-require=go.opentelemetry.io/collector/receiver/otlpreceiver@v0.165.0" in made[2]
    assert collector_binary(cache) == binary
    monkeypatch.delenv("SIDELIGHT_BUILD_COLLECTOR")
    assert collector_binary(cache) == binary
    assert calls(tmp_path) == made
    assert sorted(file.name for file in binary.parent.iterdir()) == [
        "build.lock",
        "otelcol-sidelight",
        "otelcol.yaml",
    ]


def test_another_manifest_makes_another_build(tmp_path, go):
    cache, manifest = tmp_path / "cache", tmp_path / "otelcol.yaml"
    manifest.write_bytes(MANIFEST.read_bytes())
    build_collector(cache, manifest)
    assert collector_binary(cache)
    manifest.write_bytes(MANIFEST.read_bytes() + b"# and more\n")
    build_collector(cache, manifest)
    assert collector_binary(cache) is None  # that build is not the repository's manifest's
    assert sum(call.startswith("install") for call in calls(tmp_path)) == 2


def test_several_at_once_build_one(tmp_path, go):
    program = (
        "import pathlib, sys\n"
        "from tests.support.collector_build import build_collector\n"
        "print(build_collector(pathlib.Path(sys.argv[1])))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "cache")]
    several = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(3)]
    paths = {worker.communicate()[0].strip() for worker in several}
    assert [worker.returncode for worker in several] == [0, 0, 0]
    assert len(paths) == 1
    assert sum(call.startswith("build") for call in calls(tmp_path)) == 1


def test_without_go_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("SIDELIGHT_BUILD_COLLECTOR", "1")
    with pytest.raises(CollectorBuildError, match=r"no `go` is on the PATH.*otelcol-contrib"):
        collector_binary(tmp_path / "cache")


def test_a_build_that_fails_says_at_which_step_and_leaves_nothing(tmp_path, go, monkeypatch):
    monkeypatch.setenv("GO_STATUS", "3")
    with pytest.raises(CollectorBuildError, match=r"`go install .*builder@v0.165.0` ended with 3"):
        build_collector(tmp_path / "cache")
    assert collector_binary(tmp_path / "cache") is None
    assert [file.name for file in (tmp_path / "cache" / "otelcol-0.165.0").iterdir()] == [
        "build.lock"
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("/var/cache/me", "/var/cache/me/sidelight"), ("relative", None), ("", None), (None, None)],
)
def test_builds_are_kept_where_the_xdg_specification_says(monkeypatch, value, expected):
    if value is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_directory() == Path(expected or "/home/somebody/.cache/sidelight")


def test_the_manual_says_the_manifest_s_version():
    version = collector_build._field(MANIFEST, "version")
    assert f"builder@v{version}" in collector_build.__doc__
    assert f"otelcol@v{version}" in collector_build.__doc__
    assert f"sidelight/otelcol-{version}" in collector_build.__doc__

r"""Find the OpenTelemetry Collector, or build it.

The one to use is, in this order:

1. ``otelcol-contrib`` on the PATH;
2. a build of the manifest ``otelcol.yaml`` kept in
   ``${XDG_CACHE_HOME:-~/.cache}/sidelight/otelcol-<version>/otelcol-sidelight``;
3. the same build made now, where Go (1.25 or newer) is at hand and the environment variable
   ``SIDELIGHT_BUILD_COLLECTOR`` is 1.

``python -m tests.support.collector`` (``make collector``) does the third without the variable and
prints the path of the binary. By hand, from the root of the repository, the same is::

    work=$(mktemp -d) && cp tests/support/otelcol.yaml "$work" && cd "$work"
    GOBIN="$work/bin" go install go.opentelemetry.io/collector/cmd/builder@v0.165.0
    bin/builder --config otelcol.yaml --skip-compilation --skip-get-modules
    cd sources
    go mod init sidelight/otelcol
    go mod edit -require=go.opentelemetry.io/collector/otelcol@v0.165.0 \
        $(sed -n 's/.*gomod: \(.*\) \(v.*\)/-require=\1@\2/p' ../otelcol.yaml)
    go build -mod=mod -buildvcs=false -trimpath -ldflags='-s -w' -o otelcol-sidelight .
    to=${XDG_CACHE_HOME:-$HOME/.cache}/sidelight/otelcol-0.165.0
    mkdir -p "$to" && mv otelcol-sidelight "$to" && cp ../otelcol.yaml "$to"

The first time this takes two to three minutes and 500 MB of modules, later some seconds. The
builder only makes the sources: on its own it would also run ``go mod tidy``, which wants the
modules that the tests of fileexporter need, and ends in an error where one of those cannot be had.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock
from tests.support.tools import BARE, find

MANIFEST = Path(__file__).with_name("otelcol.yaml")
HOW_TO_GET_ONE = (
    "no OpenTelemetry Collector: run `make collector` (needs Go) or put otelcol-contrib on the PATH"
)

_CORE = "go.opentelemetry.io/collector/otelcol"
_BUILDER = "go.opentelemetry.io/collector/cmd/builder"
_PROGRESS_SECONDS = 15


class CollectorBuildError(Exception):
    """The Collector could not be built."""


def cache_directory() -> Path:
    """The directory of builds: outside the checkout, so that every checkout finds them."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "sidelight"


_CACHE = cache_directory()  # at import: a test that moves HOME still finds the build


def collector_binary(cache: Path = _CACHE) -> Path | None:
    """The Collector to use, or None where there is none (``HOW_TO_GET_ONE`` says why)."""
    if BARE:
        return None
    if installed := find("otelcol-contrib"):
        return Path(installed)
    if os.environ.get("SIDELIGHT_BUILD_COLLECTOR") == "1":
        return build_collector(cache)
    return _cached(cache, MANIFEST)


def build_collector(cache: Path = _CACHE, manifest: Path = MANIFEST) -> Path:
    """The build of the manifest, made now unless it is there; one process at a time makes it."""
    if binary := _cached(cache, manifest):
        return binary
    if not find("go"):
        raise CollectorBuildError(
            "no `go` is on the PATH to build the Collector with; otelcol-contrib there does as well"
        )
    home = _home(cache, manifest)
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "build.lock"):
        if binary := _cached(cache, manifest):
            return binary
        work = home / "build"
        shutil.rmtree(work, ignore_errors=True)  # what a build that was killed left behind
        work.mkdir()
        try:
            made = _build(work, manifest)
            made.replace(home / made.name)
            (work / manifest.name).replace(home / manifest.name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return home / made.name


def main() -> int:
    """Print the path of the Collector, having built it where need be."""
    try:
        installed = find("otelcol-contrib")
        binary = Path(installed) if installed else build_collector()
    except CollectorBuildError as error:
        _say(str(error))
        return 1
    print(binary)
    return 0


def _home(cache: Path, manifest: Path) -> Path:
    return cache / f"otelcol-{_field(manifest, 'version')}"


def _cached(cache: Path, manifest: Path) -> Path | None:
    """The finished build of exactly this manifest: its copy is put beside the binary last."""
    home = _home(cache, manifest)
    binary = home / _field(manifest, "name")
    try:
        same = (home / manifest.name).read_bytes() == manifest.read_bytes()
    except FileNotFoundError:
        return None
    return binary if same and os.access(binary, os.X_OK) else None


def _build(work: Path, manifest: Path) -> Path:
    version = f"v{_field(manifest, 'version')}"
    name = _field(manifest, "name")
    module = _field(manifest, "module")
    shutil.copyfile(manifest, work / manifest.name)
    modules = re.findall(r"gomod: (\S+) (\S+)", manifest.read_text("utf-8"))
    requires = [f"-require={path}@{at}" for path, at in [(_CORE, version), *modules]]
    sources = work / "sources"
    began = time.monotonic()

    _say(f"building the OpenTelemetry Collector {version}, two to three minutes the first time")
    _run("go", "install", f"{_BUILDER}@{version}", cwd=work, GOBIN=work / "bin")
    _run(
        str(work / "bin" / "builder"),
        "--config",
        manifest.name,
        "--skip-compilation",
        "--skip-get-modules",
        cwd=work,
        TMPDIR=work,  # where it leaves an empty directory
    )
    _run("go", "mod", "init", module, cwd=sources)
    _run("go", "mod", "edit", *requires, cwd=sources)
    flags = ["-mod=mod", "-buildvcs=false", "-trimpath", "-ldflags=-s -w"]
    _run("go", "build", *flags, "-o", str(work / name), ".", cwd=sources)
    _say(f"built in {time.monotonic() - began:.0f} s")
    return work / name


def _run(*command: str, cwd: Path, **variables: Path) -> None:
    """Run one step; what it says, and that it is still at work, goes to stderr."""
    environment = {**os.environ, "GOWORK": "off"}
    environment |= {name: str(path) for name, path in variables.items()}
    shown = " ".join([Path(command[0]).name, *command[1:3]])
    _say(f"{shown} …")
    began = time.monotonic()
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=2
    ) as step:
        try:
            while True:
                try:
                    status = step.wait(_PROGRESS_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    _say(f"{shown} … {time.monotonic() - began:.0f} s")
        except BaseException:
            step.terminate()
            raise
    if status:
        raise CollectorBuildError(f"`{' '.join(command)}` ended with {status}; it says why above")


def _field(manifest: Path, name: str) -> str:
    found = re.search(rf"^  {name}: (\S+)$", manifest.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise CollectorBuildError(f"{manifest.name} names no {name}")
    return found[1]


def _say(line: str) -> None:
    print(f"collector: {line}", file=sys.stderr, flush=True)

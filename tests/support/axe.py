"""axe-core, the accessibility checks of Deque, fetched from npm once and kept in the cache."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from filelock import FileLock
from tests.support.tools import find

VERSION = "4.10.3"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sidelight"


def axe() -> str:
    """The script that a page loads; skips where it cannot be had."""
    path = CACHE / f"axe-{VERSION}.js"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _fetch(path)
    return path.read_text()


def _fetch(path: Path) -> None:
    npm = find("npm")
    if npm is None:
        pytest.skip("no npm: install Node.js, to fetch axe-core")
    packed = subprocess.run(
        [npm, "pack", "--silent", f"axe-core@{VERSION}"],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if packed.returncode:
        pytest.skip(f"npm cannot fetch axe-core: {packed.stderr.strip()}")
    archive = path.parent / packed.stdout.split()[-1]
    with tarfile.open(archive) as files:
        script = files.extractfile("package/axe.min.js")
        assert script is not None
        path.write_bytes(script.read())
    archive.unlink()

"""Files of npm packages, fetched once and kept in the cache."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from filelock import FileLock
from tests.support.tools import find

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sidelight"


def npm_file(package: str, version: str, member: str) -> str:
    """The text of one file of a package; skips where it cannot be had."""
    name = f"{package.rpartition('/')[2]}-{version}-{member.rpartition('/')[2]}"
    path = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _fetch(f"{package}@{version}", member, path)
    return path.read_text("utf-8")


def _fetch(package: str, member: str, path: Path) -> None:
    npm = find("npm")
    if npm is None:
        pytest.skip(f"no npm: install Node.js, to fetch {package}")
    packed = subprocess.run(
        [npm, "pack", "--silent", package],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if packed.returncode:
        pytest.skip(f"npm cannot fetch {package}: {packed.stderr.strip()}")
    archive = path.parent / packed.stdout.split()[-1]
    with tarfile.open(archive) as files:
        found = files.extractfile(f"package/{member}")
        assert found is not None
        path.write_bytes(found.read())
    archive.unlink()

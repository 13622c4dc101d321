"""Other versions of Python to run programs with, each with what sidelight needs to run.

An interpreter is looked for on the PATH and among pyenv's. It gets a virtual environment under
``${XDG_CACHE_HOME:-~/.cache}/sidelight``, made once: sidelight itself comes from the checkout.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from filelock import FileLock
from tests.support.collector_build import cache_directory
from tests.support.tools import BARE, find

ROOT = Path(__file__).parents[2]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
FREE_THREADED = ("3.14t", "3.13t")
_CACHE = cache_directory()  # at import: a test that moves HOME still finds what there is


def how_to_get(version: str) -> str:
    """Why a test is skipped."""
    return f"no Python {version}: put python{version} on the PATH, or `pyenv install {version}`"


@functools.cache
def interpreter(version: str, more: tuple[str, ...] = ()) -> str | None:
    """A Python of this version (``3.13``, ``3.14t``) that can run sidelight; None is none.

    ``more`` are further packages; this program's own Python has them already.
    """
    if version == HERE:
        return sys.executable
    base = None if BARE else _find(version)
    return None if base is None else str(_prepared(base, version, more))


def _find(version: str) -> str | None:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    number = version.rstrip("t")
    homes = [
        home for home in pyenv.glob(f"{number}*") if home.name.endswith("t") == ("t" in version)
    ]
    candidates = [find(f"python{version}"), *(str(h / "bin" / "python") for h in homes)]
    return next((path for path in candidates if path and _runs(path, number)), None)


def _runs(path: str, number: str) -> bool:
    """Whether it is that version: a name on the PATH may be a shim for nothing."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    ran = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return ran.stdout.strip() == number


def _prepared(base: str, version: str, more: tuple[str, ...]) -> Path:
    """The interpreter of a virtual environment with the runtime dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [*project["project"]["dependencies"], *more]
    key = hashlib.sha256("\n".join([base, *needed]).encode()).hexdigest()[:12]
    home = _CACHE / f"python-{version}-{key}"
    python, ready = home / "bin" / "python", home / "ready"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not ready.exists():
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([base, "-m", "venv", home], check=True)
            install = [python, "-m", "pip", "install", "--quiet", "--no-compile", *needed]
            subprocess.run(install, check=True)
            ready.touch()
    return python

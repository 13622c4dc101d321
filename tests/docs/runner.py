"""Runs the steps of one page in the current directory: ``python runner.py STEPS.json``.

Blocks of Python share one namespace, as they would in a notebook; commands run in a shell beside
them. What is printed is compared loosely: words must agree, numbers need not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

_DRAWN = re.compile(r"[━┄╸╺─▸│╭╮╰╯]+")
_UNIT = re.compile(r"ns|µs|ms|s|min|h|bytes|kB|MB|GB")
_NUMBER = re.compile(r"[+-]?\d\S*|none")
_SHARE = re.compile(r"\(\d[\d.]*%\)")  # of emissions over the budget: on a busy machine only
_PAUSE = re.compile(r"^\s*⋮.*$", re.MULTILINE)


def words(text):
    """The words of an output, without what is drawn; numbers and their units are all the same.

    A busy machine may make pauses, which a timeline shows: they are left out too.
    """
    for word in _SHARE.sub("", _DRAWN.sub(" ", _PAUSE.sub("", text))).split():
        if _NUMBER.fullmatch(word):
            yield "0"
        elif not _UNIT.fullmatch(word):
            yield re.sub(r"=\d\S*", "=0", word)


def alike(expected, printed):
    """Whether an output is what the page shows; ``…`` in the page stands for anything."""
    parts = [re.escape(" ".join(words(part))) for part in expected.split("…")]
    pattern = r"\s*(?:.*)".join(parts)
    return re.fullmatch(pattern, " ".join(words(printed))) is not None


def compare(expected, printed, place):
    if not alike(expected, printed):
        raise SystemExit(f"{place}: the page shows\n{expected}\nand it printed\n{printed}")


def run_python(step, namespace):
    source = "\n" * (step["line"] - 1) + step["text"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, step["page"], "exec"), namespace)
    return printed.getvalue()


def run_console(step):
    """Run each command after a ``$``; what stands under it is its output, stderr's included."""
    place = f"{step['page']}:{step['line']}"
    for part in re.split(r"^\$ ", step["text"], flags=re.MULTILINE)[1:]:
        command, rest = re.match(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", part, re.DOTALL).groups()
        expected, _, code = rest.partition("[exit code ")
        done = subprocess.run(
            ["bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            env={**os.environ, "COLUMNS": "100"},
            check=False,
        )
        wanted = int(code.strip(" ]\n") or 0) if code else 0
        if done.returncode != wanted:
            raise SystemExit(f"{place}: {command}exit code {done.returncode}\n{done.stdout}")
        if expected.strip():
            compare(expected, done.stdout, f"{place}: {command.strip()}")


def main():
    steps = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path.insert(0, "")
    namespace = {"__name__": "__main__"}
    printed = ""
    for step in steps:
        if step["mark"] == "file":
            Path(step["value"]).write_text(step["text"], encoding="utf-8")
        elif step["mark"] == "output":
            compare(step["text"], printed, f"{step['page']}:{step['line']}")
        elif step["language"] == "python":
            printed = run_python(step, namespace)
        else:
            run_console(step)


if __name__ == "__main__":
    main()

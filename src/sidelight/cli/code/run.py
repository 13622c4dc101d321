"""`sidelight run`: run a program under a map, without a change of its code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from sidelight.cli.options import StoreUrl
from sidelight.cli.output import complain, remark
from sidelight.maps import bootstrap_directory, read_map

_OTHER_STARTER: Final = "opentelemetry-instrument"
"""Its `sitecustomize` comes first on the path and imports no other one, so it must run first."""
_PYTHON: Final = re.compile(r"(python|pypy)[\d.]*t?")
_LONG_SHEBANG: Final = re.compile(rb"""'''exec' "?([^"\n]+?)"? "\$0\"""")
"""The second line of a script of pip whose interpreter's path is too long for a first line."""
_OPTIONS_WITH_VALUE: Final = "WX"
_LONG_OPTION_WITH_VALUE: Final = "--check-hash-based-pycs"
_CLEARS: Final = re.compile(r"-|-[0v]*i.*|--i\S*|-u ?PYTHONPATH|--unset=PYTHONPATH")
_UNSETS: Final = re.compile(r"(-u|--unset) PYTHONPATH")
"""Options of `env`, by which a program gets no PYTHONPATH."""
_PROBE: Final = "import sys; sys.path = [p for p in sys.path if p]; import sidelight.maps.weaving"
"""Without the current directory, which sitecustomize does not search either."""
_PROBE_TIMEOUT: Final = 60.0  # seconds that another interpreter has to import sidelight


def run(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND...", help="The program and its arguments."),
    ] = None,
    *,
    points: Annotated[
        Path,
        typer.Option("--map", metavar="FILE", help="The map: sidelight.toml or pyproject.toml."),
    ] = Path("sidelight.toml"),
    lenient: Annotated[
        bool,
        typer.Option(
            "--lenient",
            help="Log and count a point that does not fit its module; without this option the"
            " import of the module fails.",
        ),
    ] = False,
    store: StoreUrl = None,
) -> None:
    """Run a Python program, and the Python programs that it starts, under a map.

    Each module is woven right after its import; the code stays as it is. The program replaces this
    process: exit code, signals and output are the program's own. The program's interpreter must
    have sidelight installed. Where another program starts the interpreter (nice, timeout, a shell),
    put sidelight behind it.

    Examples:
      sidelight run --map sidelight.toml -- python -m app

      sidelight run --store sqlite:///events.db -- gunicorn app:server
    """
    if not command:
        complain("name a program: sidelight run --map FILE -- python -m app")
        raise typer.Exit(2)
    if Path(command[0]).name == _OTHER_STARTER:
        complain(
            f"{_OTHER_STARTER} keeps the map out of the program; let it start sidelight:"
            f" {_OTHER_STARTER} sidelight run --map FILE -- python -m app"
        )
        raise typer.Exit(2)
    path = read_map(points).path.absolute()  # report its mistakes before the program starts
    program = shutil.which(command[0])
    if program is None:
        complain(f"there is no command {command[0]}; name one that your shell finds")
        raise typer.Exit(127)
    if not _is_python(program):
        _remark_on(command)
    elif reason := _why_not_woven(program, command[1:]):
        complain(reason)
        raise typer.Exit(2)
    here = str(bootstrap_directory())
    search = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([here, search]) if search else here
    os.environ["SIDELIGHT_MAP"] = str(path)
    if lenient:
        os.environ["SIDELIGHT_MAP_LENIENT"] = "1"
    if store is not None:
        os.environ["SIDELIGHT_STORE"] = store
    sys.stdout.flush()
    if not hasattr(os, "fork"):  # Windows would start the program and go on at once
        raise typer.Exit(subprocess.call([program, *command[1:]]))  # noqa: S603
    os.execv(program, command)  # noqa: S606  # the user names the program


def _remark_on(command: Sequence[str]) -> None:
    """Say what is not known of a Python that another program starts, before it is started."""
    starter = Path(command[0]).name
    for place, word in enumerate(command[1:], 1):
        found = shutil.which(word)
        if found is not None and _is_python(found):
            if _keeps_environment_out(starter, command[1:place]):
                remark(
                    f"{starter} keeps the map from the program, because it passes on no PYTHONPATH;"
                    f" put sidelight behind it: {starter} … sidelight run --map FILE -- python …"
                )
            elif reason := _why_not_woven(found, command[place + 1 :]):
                remark(f"not instrumented, if {starter} starts {word}: {reason}")
            return
    remark(
        f"no Python is seen behind {starter}; the map reaches only interpreters that have sidelight"
        f" and get PYTHONPATH. Better: {starter} … sidelight run --map FILE -- python …"
    )


def _keeps_environment_out(starter: str, options: Sequence[str]) -> bool:
    """Return whether a starter hides PYTHONPATH from what it starts."""
    if starter != "env":
        return starter in {"sudo", "doas"}
    return any(
        _CLEARS.fullmatch(each) or _UNSETS.fullmatch(f"{each} {following}")
        for each, following in zip(options, [*options[1:], ""], strict=True)
    )


def _is_python(program: str) -> bool:
    """Return whether a program is an interpreter, or a script of one."""
    return any(_PYTHON.fullmatch(Path(each).name) for each in (program, _shebang(program)[0]))


def _why_not_woven(program: str, arguments: Sequence[str]) -> str:
    """Return why a Python program would run without the map, with the remedy; "" if unknown."""
    interpreter, line = program, arguments
    if not _PYTHON.fullmatch(Path(program).name):
        interpreter, *line = _shebang(program)
    if option := _isolating_option(line):
        return (
            f"python {option} does not read the map, because it ignores PYTHONPATH or skips"
            " sitecustomize; leave the option out, or call sidelight.weave in the program"
        )
    if Path(interpreter).absolute().parent == Path(sys.executable).absolute().parent:
        return ""
    problem = _import_problem(interpreter)
    if not problem:
        return ""
    remedy = f"install sidelight for it, or use {sys.executable}"
    subject = interpreter if interpreter == program else f"{interpreter} runs {program} and"
    return f"{subject} cannot import sidelight ({problem}); {remedy}"


def _shebang(program: str) -> list[str]:
    """Return the interpreter of a script with its options; [""] where the file names none."""
    try:
        with Path(program).open("rb") as file:
            first, second = file.readline(256), file.readline(4096)
    except OSError:
        return [""]
    if long := _LONG_SHEBANG.match(second):
        return [long[1].decode(errors="replace")]
    words = first.removeprefix(b"#!").decode(errors="replace").split()
    if not first.startswith(b"#!") or not words:
        return [""]
    if Path(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S"]
    return [shutil.which(words[0]) or "", *words[1:]] if words else [""]


def _isolating_option(arguments: Sequence[str]) -> str:
    """Return the first of ``-S``, ``-E`` and ``-I`` among the options of an interpreter.

    Return "" where there is none.
    """
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-") or argument in {"-", "--"}:
            return ""
        if argument == _LONG_OPTION_WITH_VALUE:
            next(rest, None)
        if argument.startswith("--"):
            continue
        for position, letter in enumerate(argument[1:], 2):
            if letter in "SEI":
                return f"-{letter}"
            if letter in "cm":
                return ""
            if letter in _OPTIONS_WITH_VALUE:
                if position == len(argument):
                    next(rest, None)
                break
    return ""


def _import_problem(interpreter: str) -> str:
    """Return why an interpreter cannot import sidelight; "" where it can, or gives no answer."""
    try:
        done = subprocess.run(  # noqa: S603  # the user names the interpreter
            [interpreter, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stderr.strip().splitlines()
    return (lines[-1] if lines else f"exit code {done.returncode}") if done.returncode else ""

"""Find the programs that tests run beside Python.

With ``SIDELIGHT_TEST_BARE=1`` none is found. Continuous integration runs the suite once like that,
to show that every test that needs a program or a server skips with a reason.
"""

import os
import shutil
import subprocess
from pathlib import Path

BARE = os.environ.get("SIDELIGHT_TEST_BARE") == "1"


def find(program: str) -> str | None:
    """The path of a program on the PATH; None where it is missing or hidden."""
    return None if BARE else shutil.which(program)


def remove(directory: Path) -> None:
    """Remove a directory in the background: a server's thousands of files take up to minutes."""
    null = subprocess.DEVNULL
    command = ["sh", "-c", 'rm -rf "$0" &', str(directory)]
    subprocess.run(
        command, stdin=null, stdout=null, stderr=null, start_new_session=True, check=True
    )

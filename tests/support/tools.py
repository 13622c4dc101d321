"""Find the programs that tests run beside Python.

With ``SIDELIGHT_TEST_BARE=1`` none is found. Continuous integration runs the suite once like that,
to show that every test that needs a program or a server skips with a reason.
"""

import os
import shutil

BARE = os.environ.get("SIDELIGHT_TEST_BARE") == "1"


def find(program: str) -> str | None:
    """The path of a program on the PATH; None where it is missing or hidden."""
    return None if BARE else shutil.which(program)

"""Weave the map of SIDELIGHT_MAP as Python starts: `sidelight run` puts this module on the path.

The interpreter imports a module of this name at its start. This one imports the `sitecustomize`
further down the path, if there is one, as the interpreter would have done. Any interpreter that the
program starts runs this module, so it must not need sidelight.
"""

import importlib
import os
import sys


def _start() -> None:
    here = os.path.dirname(__file__)  # noqa: PTH120  # pathlib is slow to import
    this = sys.modules.pop("sitecustomize")
    sys.path.remove(here)
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = this
    if path := os.environ.get("SIDELIGHT_MAP"):
        try:
            from sidelight.maps.weaving import bootstrap  # noqa: PLC0415
        except ImportError as error:
            sys.stderr.write(
                f"sidelight: not instrumented: {sys.executable} cannot import sidelight ({error});"
                " install sidelight for it, or unset SIDELIGHT_MAP\n"
            )
        else:
            bootstrap(path)


_start()

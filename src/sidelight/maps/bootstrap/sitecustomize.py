"""Put on the path by `sidelight run`: weaves the map that SIDELIGHT_MAP names as Python starts.

The interpreter imports a module of this name at its start; another one, further down the path, is
imported as it would have been.
"""

import importlib
import os
import sys


def _start() -> None:
    here = os.path.dirname(__file__)  # noqa: PTH120  # pathlib is slow to import
    ours = sys.modules.pop("sitecustomize")
    sys.path.remove(here)
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = ours
    if path := os.environ.get("SIDELIGHT_MAP"):
        from sidelight.maps.weaving import bootstrap  # noqa: PLC0415

        bootstrap(path)


_start()

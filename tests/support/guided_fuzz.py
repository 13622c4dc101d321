"""Fuzz what relay and command line read, guided by the branches that each input reaches.

``python -m tests.support.guided_fuzz -max_total_time=600`` runs the property of
`tests.faults.test_crafted` under atheris, which changes inputs that have reached something new. The
arguments are libFuzzer's (https://llvm.org/docs/LibFuzzer.html#options). An input that fails is
written to ``crash-…``; give its name as an argument to run it again.
"""

import sys

import atheris

# Functions of these packages tell atheris which of their branches an input takes.
with atheris.instrument_imports(include=["sidelight.record", "sidelight.spool", "sidelight.store"]):
    import sidelight.record
    import sidelight.spool
    import sidelight.store  # noqa: F401
from hypothesis import HealthCheck, settings
from tests.faults.test_crafted import GENERATED, check


@settings(deadline=None, database=None, suppress_health_check=[*HealthCheck])
@GENERATED
def property_(records, header, entry, cells):
    """Every good record beside generated ones is stored, and no command ends in a traceback."""
    good, stored = check(records, header, entry, cells)
    assert good <= set(stored)


def main() -> None:
    """Run until libFuzzer ends."""
    atheris.Setup(sys.argv, property_.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

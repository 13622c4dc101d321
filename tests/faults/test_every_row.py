"""Every fault passes through an oracle: acknowledged = stored + counted as lost."""

import pytest
from tests.faults.conftest import FAULTS, Row
from tests.support.balance import balance

#: What emits nothing, or is no row: a relay, a reader or a lock under fault, judged by itself.
NO_ROW = {
    "test_postgres_store.py": "sinks without a program, judged by `exact`: counters equal rows",
    "test_spool_model.py": "a state machine with a model of its own",
    "test_who_follows_misses_nothing": "a reader",
    "test_a_reader_follows_the_path": "a reader",
    "test_an_external_relay_reads_along": "a reader",
    "test_what_waits_for_the_spool_is_not_taken_into_a_child": "frames in memory",
    "test_the_lock_of_a_store_is_open_only_while_it_is_held": "a lock",
    "test_an_exception_in_the_first_call_of_a_process": "single calls, each judged by its next one",
    "test_an_exception_in_the_hooks_of_a_fork": "hooks without an emission",
    "test_too_few_replicas_in_sync_are_told_in_words": "words of the doctor",
    "test_without_the_gil_the_import_is_refused": "an import",
    "test_a_python_that_names_its_instructions_otherwise": "an import",
    "test_free_threaded": "an import",
    "test_every_fault_passes_an_oracle": "this test",
    "test_a_row_is_refused_unless_its_balance_is_right": "the oracle",
}


def test_every_fault_passes_an_oracle(pytestconfig):
    others = {
        item.originalname
        for item in pytestconfig.stash[FAULTS]
        if "row" not in item.fixturenames and item.path.name not in NO_ROW
    }
    assert others <= set(NO_ROW), f"they enter no row: {others - set(NO_ROW)}"


@pytest.mark.parametrize(
    ("stored", "counted", "is_repeated", "told"),
    [
        ("abc", 0, False, None),
        ("abcx", 0, False, None),  # of a program that was killed before it could tell
        ("ab", 1, False, None),
        ("abcc", 0, True, None),
        ("ab", 0, False, "not stored: ['c']"),
        ("abc", 1, False, "counted 1"),
        ("ab", 2, False, "counted 2"),
        ("abcc", 0, False, "1 are stored twice"),
        ("abb", 1, False, "1 are stored twice"),
        ("abb", 0, True, "not stored: ['c']"),
    ],
)
def test_a_row_is_refused_unless_its_balance_is_right(stored, counted, is_repeated, told):
    entered = []
    row = Row(lambda _, line: entered.append(line), 0)
    verdict = balance("abc", stored, counted=counted, is_repeated=is_repeated)
    if told is None:
        row(0, "made up", injected=1, verdict=verdict)
    else:
        with pytest.raises(AssertionError) as met:
            row(0, "made up", injected=1, verdict=verdict)
        assert told in str(met.value)
    assert entered[0]["acknowledged"] == 3

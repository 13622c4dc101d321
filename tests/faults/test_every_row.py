"""Every fault passes through an oracle: acknowledged = stored + counted as lost."""

import pytest
from tests.faults.conftest import FAULTS, Row
from tests.support.balance import balance

#: Tests without a row, each with the reason: no event of theirs is acknowledged to a caller, or
#: they judge by themselves.
NO_ROW = {
    "test_postgres_store.py": "sinks write records that no caller emitted; each test compares rows",
    "test_spool_model.py": "the model knows after each step what is owed, and compares all of it",
    "test_a_reader_follows_the_path": "the fault meets a reader; nothing is emitted after it",
    "test_what_waits_for_the_spool_is_not_taken_into_a_child": "frames in memory, never emitted",
    "test_the_lock_of_a_store_is_open_only_while_it_is_held": "a lock, without a store",
    "test_too_few_replicas_in_sync_are_told_in_words": "a sink writes a record of no caller",
    "test_without_the_gil_the_import_is_refused": "the import is refused, so that nothing emits",
    "test_a_python_that_names_its_instructions_otherwise": "it imports, and emits nothing",
    "test_free_threaded": "it imports, and emits nothing",
    "test_every_fault_passes_an_oracle": "it checks this list",
    "test_a_row_is_refused_unless_its_balance_is_right": "it checks the oracle",
}


def test_every_fault_passes_an_oracle(pytestconfig):
    others = {
        item.originalname
        for item in pytestconfig.stash[FAULTS]
        if "row" not in item.fixturenames and item.path.name not in NO_ROW
    }
    assert others <= set(NO_ROW), f"they enter no row: {others - set(NO_ROW)}"
    named = {name for name in NO_ROW if not name.endswith(".py")}
    enter = {item.originalname for item in pytestconfig.stash[FAULTS]} - others
    assert not named & enter, f"they enter a row: {named & enter}"


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

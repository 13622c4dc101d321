"""Every fault passes through an oracle: acknowledged = stored + counted as lost."""

from tests.faults.conftest import FAULTS

#: What emits nothing, or is no row: a relay, a reader or a lock under fault, judged by itself.
NO_ROW = {
    "test_postgres_store.py": "sinks without a program, judged by `exact`: counters equal rows",
    "test_spool_model.py": "a state machine with a model of its own",
    "test_who_follows_misses_nothing": "a reader",
    "test_a_reader_follows_the_path": "a reader",
    "test_an_external_relay_reads_along": "a reader",
    "test_the_next_process_delivers": "every event of one program, by its id",
    "test_what_waits_for_the_spool_is_not_taken_into_a_child": "frames in memory",
    "test_a_daemon_joins_its_outbox": "committed orders, by their names",
    "test_a_commit_whose_answer_is_lost": "committed orders, by their names",
    "test_the_lock_of_a_store_is_open_only_while_it_is_held": "a lock",
    "test_a_transaction_of_a_traced_connection": "committed orders, by their names",
    "test_too_few_replicas_in_sync_are_told_in_words": "words of the doctor",
    "test_without_the_gil_the_import_is_refused": "an import",
    "test_a_python_that_names_its_instructions_otherwise": "an import",
    "test_free_threaded": "an import",
    "test_every_fault_passes_an_oracle": "this test",
}


def test_every_fault_passes_an_oracle(pytestconfig):
    others = {
        item.originalname
        for item in pytestconfig.stash[FAULTS]
        if "row" not in item.fixturenames and item.path.name not in NO_ROW
    }
    assert others <= set(NO_ROW), f"they enter no row: {others - set(NO_ROW)}"

"""The outbox among the tables of a project that Alembic migrates."""

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import MetaData
from tests.support import business

from sidelight.outbox import table
from sidelight.transactions import create_outbox, outbox_status


@pytest.mark.parametrize("database", business.DATABASES)
def test_autogenerate_makes_it_and_finds_nothing_to_change(database, tmp_path):
    url = business.DATABASES[database](tmp_path)
    metadata = MetaData()
    table(metadata)
    engine = business.engine_on(url)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        operations = Operations(context)
        for operation in produce_migrations(context, metadata).upgrade_ops.ops:
            operations.invoke(operation)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    assert create_outbox(url) is False
    assert outbox_status(url).waiting == 0


@pytest.mark.parametrize("database", business.DATABASES)
def test_what_the_command_made_is_what_autogenerate_would_make(database, tmp_path):
    url = business.DATABASES[database](tmp_path)
    assert create_outbox(url)
    metadata = MetaData()
    table(metadata)
    engine = business.engine_on(url)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()

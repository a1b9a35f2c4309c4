"""Alembic's entry point; always runs on the connection that `proponent.migrations.upgrade` hands over."""

from alembic import context

from proponent.schema.catalog import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()

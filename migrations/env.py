"""Runs one schema's revisions as the owner role, under a lock, giving up rather than blocking."""

from alembic import context
from sqlalchemy import text

from libs.common.migrate import OWNER, version_table_options

config = context.config
connection = config.attributes.get("connection")
if connection is None:
    raise SystemExit("run migrations with `motcua migrate`, which opens the connection")
schema = config.attributes["schema"]

connection.execute(text(f"SET LOCAL ROLE {OWNER}"))
connection.execute(text(f"SET LOCAL search_path TO {schema}"))
# A revision that cannot get its lock at once fails and is run again later; it must never make
# the citizens' statements queue behind it.
connection.execute(text("SET LOCAL lock_timeout TO '5s'"))
context.configure(connection=connection, **version_table_options(schema))
context.run_migrations()

"""How alembic reaches the database: one transaction, one migrating process at a time."""

from alembic import context
from sqlalchemy import text

from service.models import Base
from service.session import Database, open_database
from service.settings import load_settings

_LOCK = 7_264_001  # any number, as long as it is the same in every process


def run() -> None:
    """Apply or generate migrations."""
    url = context.config.attributes.get("database_url")
    database = Database(url, pool_size=1) if url else open_database(load_settings())
    try:
        with database.engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
            with context.begin_transaction():
                context.run_migrations()
    finally:
        database.dispose()


run()

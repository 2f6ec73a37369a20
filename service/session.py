"""The engine and its transactions."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import UndefinedColumn, UndefinedTable
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DataError, InterfaceError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from service.errors import ConfigurationError, DatabaseUnavailable, InvalidValue
from service.settings import Settings

# A stopped process must not hold a job's row for ever, nor make others wait for it for ever.
_SESSION_OPTIONS = "-c idle_in_transaction_session_timeout=30s -c lock_timeout=10s -c timezone=UTC"


class Database:
    """A PostgreSQL database; connections are opened on first use."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("postgresql", "postgres"):
            raise ConfigurationError(f"database_url begins with {parsed.drivername}, expected postgresql")
        self.url = parsed.set(drivername="postgresql+psycopg")
        self.engine: Engine = create_engine(
            self.url,
            pool_pre_ping=True,
            pool_size=pool_size,
            max_overflow=20,
            pool_timeout=10,
            connect_args={
                "connect_timeout": 5,
                "keepalives_idle": 15,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "options": _SESSION_OPTIONS,
            },
        )

    @property
    def dsn(self) -> str:
        """The URL as libpq reads it, password included."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed on a normal exit, rolled back on an error. Rows stay readable afterwards."""
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except DataError as error:
            raise InvalidValue(f"the database cannot hold a value: {error.orig}") from error
        except ProgrammingError as error:
            if isinstance(error.orig, UndefinedTable | UndefinedColumn):
                raise ConfigurationError("the schema is not the one of this version: run `make migrate`") from error
            raise
        except (OperationalError, InterfaceError) as error:
            raise DatabaseUnavailable(f"the database does not answer: {error.orig}") from error
        except InternalError as error:
            if error.connection_invalidated:  # a stopped process went on after the server had ended its session
                raise DatabaseUnavailable(f"the database has closed the session: {error.orig}") from error
            raise

    def wait_ready(self, timeout_s: float = 30) -> None:
        """Return once the database answers; DatabaseUnavailable where it does not in time."""
        give_up_at = time.monotonic() + timeout_s
        while True:
            try:
                with self.session() as session:
                    session.execute(text("SELECT 1"))
                return
            except DatabaseUnavailable:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.2)

    def dispose(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()


def open_database(settings: Settings) -> Database:
    """The database of the settings, or the embedded one if it is running under the data folder."""
    if settings.database_url:
        return Database(settings.database_url)
    from service.embedded import EmbeddedPostgres

    url = EmbeddedPostgres(settings.data_dir).running_url()
    if url is None:
        raise ConfigurationError(
            f"MR_DATABASE_URL is not set and no embedded database runs under {settings.data_dir}: start `mr up`"
        )
    return Database(url)

"""The schema in the database against the one that this code needs."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.session import Database

_MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to a revision; safe to run by several processes at once."""
    command.upgrade(_configuration(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database back to a revision; `base` is an empty one."""
    command.downgrade(_configuration(url), revision)


def is_at_head(database: Database) -> bool:
    """Whether every migration of this code has been applied, and none that it does not know."""
    with database.session() as session:
        found = MigrationContext.configure(session.connection()).get_current_heads()
    return set(found) == set(ScriptDirectory(str(_MIGRATIONS)).get_heads())


def _configuration(url: str) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(_MIGRATIONS))
    configuration.attributes["database_url"] = url
    return configuration

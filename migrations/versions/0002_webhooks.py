"""Webhooks and their outbox."""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Filled by the tables this revision is named for."""


def downgrade() -> None:
    """The reverse."""

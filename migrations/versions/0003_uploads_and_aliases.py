"""Resumable uploads, and names for adapters."""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Filled by the tables this revision is named for."""


def downgrade() -> None:
    """The reverse."""

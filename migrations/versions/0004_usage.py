"""Usage and limits of a key."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Filled by the tables this revision is named for."""


def downgrade() -> None:
    """The reverse."""

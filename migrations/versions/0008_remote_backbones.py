"""Backbones that a tenant names itself: an id is the tenant's own."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("backbones_pkey", "backbones", type_="primary")
    op.create_primary_key("backbones_pkey", "backbones", ["tenant", "id"])


def downgrade() -> None:
    op.execute("DELETE FROM backbones WHERE id LIKE 'remote:%'")
    op.drop_constraint("backbones_pkey", "backbones", type_="primary")
    op.create_primary_key("backbones_pkey", "backbones", ["id"])

"""Backbones that jobs train."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("backbones", sa.Column("job_id", sa.Text(), nullable=True))
    op.create_unique_constraint("backbones_job_id_key", "backbones", ["job_id"])
    op.create_foreign_key("backbones_job", "backbones", "jobs", ["job_id"], ["id"], ondelete="CASCADE")


def downgrade() -> None:
    op.drop_constraint("backbones_job", "backbones", type_="foreignkey")
    op.drop_constraint("backbones_job_id_key", "backbones", type_="unique")
    op.drop_column("backbones", "job_id")

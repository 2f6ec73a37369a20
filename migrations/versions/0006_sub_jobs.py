"""Jobs that a job is made of."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("parent_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("part", sa.Text(), nullable=True))
    op.create_foreign_key("jobs_parent", "jobs", "jobs", ["parent_id"], ["id"], ondelete="CASCADE")
    op.create_index("jobs_by_parent", "jobs", ["parent_id", "part"], unique=True)
    op.create_index(
        "jobs_waiting",
        "jobs",
        ["id"],
        postgresql_where=sa.text("status = 'queued' AND next_dispatch_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("jobs_waiting", table_name="jobs")
    op.drop_index("jobs_by_parent", table_name="jobs")
    op.drop_constraint("jobs_parent", "jobs", type_="foreignkey")
    op.drop_column("jobs", "part")
    op.drop_column("jobs", "parent_id")

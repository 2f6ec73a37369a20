"""Adapters belong to a tenant and outlive the job that made them."""

import pytest

from service import adapters, jobs
from service.errors import NotFound
from service.session import Database
from tests.service.acting import submit


def test_adapter_outlives_its_job(database: Database) -> None:
    job_id = submit(database)
    with database.session() as session:
        jobs.request_cancel(session, "a", job_id)
        adapter = adapters.create(
            session, tenant="a", job_id=job_id, sha256="0" * 64, size_bytes=1, config={"classes": ["x"]}
        )
        jobs.delete(session, "a", job_id)
    with database.session() as session:
        found = adapters.get(session, "a", adapter.id)
    assert (found.job_id, found.sha256, found.config) == (None, "0" * 64, {"classes": ["x"]})


def test_other_tenants_adapter_is_not_found(database: Database) -> None:
    with database.session() as session:
        adapter = adapters.create(session, tenant="a", job_id=None, sha256="0" * 64, size_bytes=1, config={})
    with database.session() as session:
        for use in (adapters.get, adapters.delete):
            with pytest.raises(NotFound):
                use(session, "b", adapter.id)
        assert adapters.list_adapters(session, "b") == ([], False)
        assert [row.id for row in adapters.list_adapters(session, "a")[0]] == [adapter.id]
        adapters.delete(session, "a", adapter.id)
        assert adapters.list_adapters(session, "a") == ([], False)

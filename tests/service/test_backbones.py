"""Registered backbones belong to a tenant and stay while a job needs them."""

import pytest

from mr_core.backbones.description import BackboneDescription, BackboneOutputs
from service import backbones, jobs
from service.errors import BackboneInUse, NotFound
from service.models import RegisteredBackbone
from service.session import Database
from tests.service.acting import submit


def register(database: Database, tenant: str = "a") -> RegisteredBackbone:
    description = BackboneDescription(
        id="bb_unset", library="open_clip", architecture="tiny", architecture_config={"embed_dim": 8}
    )
    with database.session() as session:
        return backbones.create(
            session,
            tenant=tenant,
            name="tiny",
            description=description,
            sha256="0" * 64,
            size_bytes=10,
            parameters=1000,
            outputs=BackboneOutputs(labels=None, embedding=8, text=True),
        )


def test_description_survives_the_database(database: Database) -> None:
    backbone = register(database)
    with database.session() as session:
        described = backbones.describe(backbones.get(session, "a", backbone.id))
    assert (described.id, described.sha256) == (backbone.id, "0" * 64)
    assert described.architecture_config == {"embed_dim": 8}
    assert backbone.outputs == {"labels": None, "embedding": 8, "text": True}


def test_other_tenants_backbone_is_not_found(database: Database) -> None:
    backbone = register(database)
    with database.session() as session:
        for use in (backbones.get, backbones.delete):
            with pytest.raises(NotFound):
                use(session, "b", backbone.id)
        assert backbones.list_backbones(session, "b") == ([], False)


def test_pages(database: Database) -> None:
    ids = [register(database).id for _ in range(3)]
    with database.session() as session:
        first, has_more = backbones.list_backbones(session, "a", limit=2)
        assert ([row.id for row in first], has_more) == ([ids[2], ids[1]], True)
        last, has_more = backbones.list_backbones(session, "a", after=ids[1], limit=2)
        assert ([row.id for row in last], has_more) == ([ids[0]], False)


@pytest.mark.parametrize("prefix", ["", "random:"])
def test_backbone_in_use_cannot_be_deleted(database: Database, prefix: str) -> None:
    backbone = register(database)
    job_id = submit(database, spec={"kind": "diagnose", "backbone": prefix + backbone.id})
    with database.session() as session, pytest.raises(BackboneInUse, match=job_id):
        backbones.delete(session, "a", backbone.id)
    with database.session() as session:
        jobs.request_cancel(session, "a", job_id)
        backbones.delete(session, "a", backbone.id)
        with pytest.raises(NotFound):
            backbones.get(session, "a", backbone.id)

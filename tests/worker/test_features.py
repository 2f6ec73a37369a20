"""The feature cache against a real database and blob store."""

import numpy as np
import pytest

from service import datasets
from service.models import Blob, FeatureSet
from service.orphans import delete_orphans
from worker.features import TenantFeatures


def _arrays(seed: int, n: int = 10) -> dict[str, np.ndarray]:
    values = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    return {"embedding": values, "source_logits": values[:, :3]}


@pytest.fixture
def features(database, blobs):
    def make(tenant="a", *, max_bytes=10**6, dataset="d" * 64):
        return TenantFeatures(database, blobs, tenant=tenant, dataset_sha256=dataset, max_bytes=max_bytes)

    return make


def _n_rows(database) -> int:
    with database.session() as session:
        return session.query(FeatureSet).count()


def test_gives_back_what_it_was_given(features):
    cache = features()
    assert cache.load("k") is None
    cache.save("k", _arrays(0))
    found = cache.load("k")
    assert all(np.array_equal(found[name], values) for name, values in _arrays(0).items())
    assert cache.load("another") is None


def test_tenants_do_not_share(features):
    features("a").save("k", _arrays(0))
    assert features("b").load("k") is None


def test_two_jobs_that_compute_the_same_leave_one_row(features, database):
    features().save("k", _arrays(0))
    features().save("k", _arrays(0))
    assert _n_rows(database) == 1


def test_the_least_recently_used_goes_first(features, database):
    one = len(_arrays(0)["embedding"]) * 8 * 4 + 10 * 3 * 4 + 300  # with the header of the file
    cache = features(max_bytes=2 * one)
    cache.save("first", _arrays(1))
    cache.save("second", _arrays(2))
    cache.load("first")
    cache.save("third", _arrays(3))
    assert cache.load("second") is None
    assert cache.load("first") is not None
    assert cache.load("third") is not None
    with database.session() as session:
        assert session.query(Blob).count() == 2  # the bytes are gone too


def test_what_is_larger_than_the_cache_is_not_kept(features, database):
    features(max_bytes=100).save("k", _arrays(0))
    features(max_bytes=0).save("k", _arrays(0))
    assert _n_rows(database) == 0


def test_lost_or_damaged_bytes_are_a_miss_and_are_mended(features, database, blobs):
    cache = features()
    cache.save("k", _arrays(0))
    with database.session() as session:
        sha256 = session.query(FeatureSet.sha256).scalar()
    with blobs.local_path(sha256) as path:
        path.write_bytes(b"torn")
    assert cache.load("k") is None
    with blobs.local_path(sha256) as path:
        path.unlink()
    assert cache.load("k") is None
    cache.save("k", _arrays(0))
    assert np.array_equal(cache.load("k")["embedding"], _arrays(0)["embedding"])


def test_a_dataset_takes_its_features_with_it(features, database, blobs, dataset_id):
    with database.session() as session:
        dataset = datasets.require_ready(session, "tenant", dataset_id)
        sha256 = dataset.sha256
    features("tenant", dataset=sha256).save("k", _arrays(0))
    features("other", dataset=sha256).save("k", _arrays(0))
    with database.session() as session:
        datasets.delete(session, "tenant", dataset_id)
    assert features("tenant").load("k") is None
    assert features("other").load("k") is not None
    delete_orphans(database, blobs, older_than_s=0)
    assert features("other").load("k") is not None  # still referred to

"""Jobs of every kind end exactly once while parts of the cluster are killed; `chaos.py --jobs 100` is the full run."""

import pytest

from tests.cluster import chaos
from tests.cluster.cluster import Cluster
from tests.processes import processes_on

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

_PARTS = {"gateway": 2, "sweeper": 2, "io-worker": 1, "cpu-worker": 2}  # no job needs a predictor


def test_every_job_ends_exactly_once(folder):
    uploads = folder / "uploads"
    uploads.mkdir()
    with Cluster(folder / "cluster", only=_PARTS, settings=chaos.SETTINGS, module="tests.cluster.toy_part") as cluster:
        outcome = chaos.run(cluster, uploads, n_jobs=10, seed=7, pace_s=2, strike_s=20, end_s=600)
        told = "\n".join(outcome.lines())
    assert outcome.faults == [], told
    kinds = {"toy", "validate_dataset", "diagnose", "reprogram", "evaluate", "rank"}
    assert {kind for kind, _ in outcome.ends} == kinds, told
    assert sum(outcome.ends.values()) >= 10 + 1 + 1 + 2, told
    assert sum(outcome.strikes.values()) >= 5, told
    assert processes_on(folder) == []

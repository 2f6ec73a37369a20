"""What a tenant may keep: by number and by bytes, its own alone."""

import threading

import pytest

from service import adapters, datasets, quotas
from service.errors import QuotaExceeded
from service.session import Database
from service.settings import Settings


def _dataset(database: Database, tenant: str, size_bytes: int) -> str:
    with database.session() as session:
        return datasets.create(
            session, tenant=tenant, name="d", modality="image", sha256="0" * 64, size_bytes=size_bytes
        ).id


def test_every_kind_counts_towards_the_bytes(database: Database, settings: Settings) -> None:
    _dataset(database, "a", 10)
    _dataset(database, "b", 1000)
    with database.session() as session:
        adapters.create(session, tenant="a", job_id=None, sha256="1" * 64, size_bytes=5, config={})
        assert quotas.stored_bytes(session, "a") == 15
        assert quotas.stored_bytes(session, "nobody") == 0
        few = settings.model_copy(update={"max_stored_bytes": 20})
        room = quotas.require_room(session, "a", "datasets", few)
        room.require(5)
        with pytest.raises(QuotaExceeded, match="15 bytes are stored, and with 6 more they would pass the limit of 20"):
            room.require(6)
        with pytest.raises(QuotaExceeded, match="limit of 20"):
            quotas.require_room(session, "a", "backbones", few, size_bytes=6)


@pytest.mark.parametrize("kept", ["datasets", "backbones", "adapters"])
def test_numbers_have_limits_of_their_own(database: Database, settings: Settings, kept: quotas.Kept) -> None:
    _dataset(database, "a", 1)
    few = settings.model_copy(update={f"max_{kept}": 1})
    with database.session() as session:
        if kept == "datasets":
            with pytest.raises(QuotaExceeded, match="there are 1 datasets, and 1 is the limit"):
                quotas.require_room(session, "a", kept, few)
        else:
            quotas.require_room(session, "a", kept, few)


def test_two_that_come_at_once_do_not_share_the_last_place(database: Database, settings: Settings) -> None:
    few = settings.model_copy(update={"max_datasets": 1})
    barrier, outcomes = threading.Barrier(2), []

    def add() -> None:
        barrier.wait()
        try:
            with database.session() as session:
                quotas.take_room(session, "a", "datasets", few, size_bytes=1)
                datasets.create(session, tenant="a", name="d", modality="image", sha256="0" * 64, size_bytes=1)
            outcomes.append("kept")
        except QuotaExceeded:
            outcomes.append("refused")

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["kept", "refused"]

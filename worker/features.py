"""The feature cache of an attempt: rows in PostgreSQL, arrays as safetensors in the blob store."""

from collections.abc import Mapping

import numpy as np
import safetensors.numpy
import structlog
from numpy.typing import NDArray
from safetensors import SafetensorError

from mr_core.features import FeatureCache
from service import feature_sets
from service.blobs import Blobs
from service.errors import ServiceError
from service.orphans import delete_orphan
from service.session import Database

_log = structlog.get_logger(__name__)


class TenantFeatures(FeatureCache):
    """What the tenant's earlier jobs computed. A cache: whatever fails here costs time and nothing else."""

    def __init__(self, database: Database, blobs: Blobs, *, tenant: str, dataset_sha256: str, max_bytes: int) -> None:
        self._database = database
        self._blobs = blobs
        self._tenant = tenant
        self._dataset_sha256 = dataset_sha256
        self._max_bytes = max_bytes

    def load(self, key: str) -> Mapping[str, NDArray[np.float32]] | None:
        try:
            with self._database.session() as session:
                sha256 = feature_sets.find(session, self._tenant, key)
            if sha256 is None:
                return None
            with self._blobs.local_path(sha256) as path:
                return safetensors.numpy.load(path.read_bytes())
        except (ServiceError, SafetensorError, OSError) as error:
            _log.warning("kept features are not readable", key=key, error=str(error))
            return None

    def save(self, key: str, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        if sum(array.nbytes for array in arrays.values()) > self._max_bytes:
            return
        content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        try:
            with self._blobs.writer() as writer:
                writer.write(content)
                blob = writer.commit()
            with self._database.session() as session:
                feature_sets.keep(session, self._tenant, key, blob, dataset_sha256=self._dataset_sha256)
                evicted = feature_sets.evict(session, max_bytes=self._max_bytes)
            for sha256 in evicted:
                delete_orphan(self._database, self._blobs, sha256)
        except (ServiceError, OSError) as error:
            _log.warning("features are not kept", key=key, error=str(error))

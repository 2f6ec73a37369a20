"""Backbones of one tenant by id: uploaded and trained ones from the blob store, remote ones by their registration.

The others are as mr_core loads them.
"""

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import RANDOM_PREFIX, BackboneDescription
from mr_core.backbones.identifiers import randomised
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.remote.description import remote_of
from mr_core.errors import BackboneError
from service import backbones
from service.blobs import Blobs
from service.errors import NotFound, TrainedBackboneMissing
from service.remote_models import access
from service.session import Database
from service.settings import Settings


class TenantBackbones:
    """Loads what a job of this tenant may name; `seed` is that of `random:` variants."""

    def __init__(self, database: Database, blobs: Blobs, settings: Settings, *, tenant: str, seed: int = 0) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._tenant = tenant
        self._seed = seed

    def load(self, backbone_id: str, *, attempts: int | None = None) -> Backbone:
        """The frozen backbone; BackboneError where the tenant has none of this id, or TrainedBackboneMissing.

        `attempts` is how often a remote one is asked at most, if not as often as registered.
        """
        registered_id = backbone_id.removeprefix(RANDOM_PREFIX)
        if not backbones.is_registered(registered_id):
            return load_backbone(backbone_id, random_seed=self._seed)
        description, sha256 = self._registered(registered_id)
        if backbone_id.startswith(RANDOM_PREFIX):
            return load_backbone(randomised(description, seed=self._seed))
        if description.library == "remote":
            remote = remote_of(description)
            if attempts is not None:
                description = description.model_copy(
                    update={"arguments": description.arguments | {"attempts": attempts}}
                )
            return load_backbone(description, access=access(self._settings, self._tenant, remote))
        with self._blobs.local_path(sha256) as weights:
            return load_backbone(description, weights=weights)

    def _registered(self, backbone_id: str) -> tuple[BackboneDescription, str]:
        try:
            with self._database.session() as session:
                row = backbones.get(session, self._tenant, backbone_id)
        except TrainedBackboneMissing:
            raise
        except NotFound as error:
            raise BackboneError(f"there is no backbone {backbone_id}", param="backbone") from error
        return backbones.describe(row), row.sha256

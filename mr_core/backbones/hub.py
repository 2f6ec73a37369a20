"""Hub downloads: safetensors files only, from the local cache where they are in it."""

from pathlib import Path

from huggingface_hub import get_session, hf_hub_download
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE
from huggingface_hub.errors import LocalEntryNotFoundError

from mr_core.errors import BackboneUnavailable


def fetch(repository: str, filename: str, *, backbone_id: str, library: str) -> Path:
    """The local path of a hub file; BackboneUnavailable saying how to provide it where it cannot be had."""
    try:
        return Path(hf_hub_download(repository, filename, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        get_session().head(ENDPOINT, timeout=5)  # once: the client itself retries for half a minute
        return Path(hf_hub_download(repository, filename))
    except Exception as error:  # the hub client's transport errors share no base class across its versions
        raise BackboneUnavailable(
            f"the weights of {backbone_id} are not in the local cache and the hub cannot be reached. Either put "
            f"{filename} of {repository} into the cache ({HF_HUB_CACHE}, in the hub client's layout; HF_HOME moves "
            f"it), or register the file: POST /v1/backbones with library={library} and its architecture",
            param="backbone",
        ) from error

"""Where and how the service runs. Read once from the environment at start-up, then passed down as arguments."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """Each field is the environment variable MR_<FIELD>; what a single job asks lives in its JobSpec instead."""

    model_config = SettingsConfigDict(env_prefix="MR_", frozen=True, extra="ignore")

    data_dir: Path = Field(
        Path("mr-data"), description="Folder of everything that is embedded: database, broker, blobs."
    )
    database_url: str | None = Field(
        None, description="PostgreSQL (postgresql://user:password@host/name). Unset: the embedded one under data_dir."
    )
    broker_url: str | None = Field(
        None, description="Celery's broker (redis://, rediss:// or amqp://). Unset: a folder under data_dir."
    )
    blob_url: str | None = Field(
        None,
        description="Any fsspec URL for datasets and checkpoints (s3://bucket/prefix). Unset: a folder under data_dir.",
    )
    predictor_urls: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Predictors behind the gateway, comma-separated. Unset: one starts on first use.",
    )
    predictor_host: str = Field("127.0.0.1", description="Address the predictor binds.")
    predictor_port: int = Field(8100, ge=0, le=65535, description="Port the predictor binds.")
    predictor_token: SecretStr | None = Field(
        None,
        description="Shared secret between gateway and predictor; required where the predictor is not on loopback.",
    )
    host: str = Field("127.0.0.1", description="Address the gateway binds.")
    port: int = Field(8000, ge=0, le=65535, description="Port the gateway binds.")
    public_url: str | None = Field(None, description="The address clients use, where a proxy stands in front.")
    lease_s: float = Field(60, gt=0, description="A worker that has not renewed its lease for this long is lost.")
    heartbeat_s: float = Field(15, gt=0, description="Time between renewals of a lease; at most a third of lease_s.")
    sweep_s: float = Field(5, gt=0, description="Time between two rounds of the sweeper.")
    cancel_grace_s: float = Field(
        8, gt=0, description="A cancelled job whose worker has not answered by then is ended."
    )
    progress_deadline_s: float = Field(
        600, gt=0, description="A running job without progress for this long is stalled."
    )
    progress_deadlines_s: dict[str, float] = Field(
        default_factory=dict, description='The same for single phases, as JSON: {"training": 1200}.'
    )
    max_attempts: int = Field(3, ge=1, le=100, description="Attempts of a job that lost its worker or its memory.")
    max_upload_bytes: int = Field(2048 * MIB, gt=0, description="Largest upload of a dataset or of weights.")
    max_unfinished_jobs: int = Field(1000, ge=1, description="Queued and running jobs that one tenant may have.")
    max_datasets: int = Field(1000, ge=1, description="Datasets that one tenant may have.")
    max_backbones: int = Field(200, ge=1, description="Registered backbones that one tenant may have.")
    max_adapters: int = Field(10000, ge=1, description="Adapters that one tenant may have when it submits a job.")
    max_stored_bytes: int = Field(
        102400 * MIB, ge=1, description="Bytes of datasets, backbones and adapters that one tenant may have."
    )
    requests_per_minute: int = Field(
        6000, ge=0, description="Requests with one API key; 0 is no limit. Across gateways where the broker is Redis."
    )
    wrong_keys_per_minute: int = Field(
        60, ge=0, description="Wrong API keys from one address, before it is answered 429; 0 is no limit."
    )
    feature_cache_bytes: int = Field(
        10240 * MIB, ge=0, description="Outputs of backbones kept for later jobs; the least used go first. 0: none."
    )
    max_uploads: int = Field(20, ge=1, description="Resumable uploads under way that one tenant may have.")
    upload_expiry_s: float = Field(
        86400, gt=0, description="A resumable upload is deleted so long after its last new part."
    )
    max_webhooks: int = Field(20, ge=1, description="Webhooks that one tenant may have.")
    webhook_timeout_s: float = Field(
        10, gt=0, le=60, description="A receiver that has not answered a webhook by then has not taken it."
    )
    webhook_attempts: int = Field(13, ge=1, le=100, description="Attempts of a delivery before it has failed.")
    webhook_backoff_s: float = Field(
        5, gt=0, description="Time between the first two attempts of a delivery; each later one is three times as long."
    )
    webhook_backoff_max_s: float = Field(21600, gt=0, description="Longest time between two attempts of a delivery.")
    webhook_retention_s: float = Field(
        604800, gt=0, description="The record of a delivery is deleted so long after its end."
    )
    allow_loopback_urls: bool = Field(
        False,
        description="Webhooks and remote backbones may lead to this machine, by http too; for development. `mr up` on "
        "loopback turns it on.",
    )
    remote_secrets_dir: Path | None = Field(
        None,
        description="Folder of the secrets that remote backbones may name, each a file <name>.json with header, value, "
        "origin and tenants; for workers and predictors.",
    )
    orphan_blob_s: float = Field(
        86400, gt=0, description="A blob that nothing refers to is deleted when it is this old."
    )
    threads: int = Field(0, ge=0, description="Threads of one training attempt; 0 is the number of free cores.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="Log lines for people or for machines.")

    @field_validator("predictor_urls", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return [url.strip().rstrip("/") for url in value.split(",") if url.strip()] if isinstance(value, str) else value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _heartbeats_fit_the_lease(self) -> "Settings":
        if self.heartbeat_s > self.lease_s / 3:
            raise ValueError(f"heartbeat_s is {self.heartbeat_s}, expected at most a third of lease_s ({self.lease_s})")
        return self

    @property
    def blob_store_url(self) -> str:
        """Where blobs are: blob_url, or the folder under data_dir."""
        return self.blob_url or f"file://{self.data_dir / 'blobs'}"

    @property
    def broker_dir(self) -> Path:
        """The folder that stands for the broker where no broker_url is set."""
        return self.data_dir / "broker"

    def progress_deadline(self, phase: str | None) -> float:
        """Seconds that this phase may go without progress."""
        return self.progress_deadlines_s.get(phase or "", self.progress_deadline_s)


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment; keyword arguments (a command's flags) come first."""
    return Settings(**{name: value for name, value in overrides.items() if value is not None})

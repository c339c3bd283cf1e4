"""What an operator can set; each field is read from the variable COUNTERSIGN_ and its name.

Nothing else reads the environment for it. Composition roots (app, clock, cli.up, gateway) load the
settings once and pass values on; no other module imports this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from registry.errors import Invalid

SECRETS = Path("/run/secrets")
"""Where containers mount secret files, each named after its variable."""
PREFIX = "COUNTERSIGN_"

Directory = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class Settings(BaseSettings):
    """The settings; make them with `load`.

    Every field has a default, so that `countersign up` works without any.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, env_ignore_empty=True, extra="ignore"
    )

    home: Directory = Field(
        default=Path("~/.countersign"),
        validate_default=True,
        description="The directory of keys and tokens, and of blobs and the database unless other "
        "settings place them elsewhere.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(
        default=8080, ge=1, le=65535, description="The port of the API and the console."
    )
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="PostgreSQL 15 to 18 for the application, as a SQLAlchemy URL. Without it, "
        "`up` runs an embedded one.",
    )
    migrate_database_url: str | None = Field(
        default_factory=lambda data: data["database_url"],
        repr=False,
        description="The same database as the owner of the tables, for migrations.",
    )
    sequencer_database_url: str | None = Field(
        default_factory=lambda data: data["database_url"],
        repr=False,
        description="The same database as the single writer of the audit log.",
    )
    blob_url: str = Field(
        default_factory=lambda data: (data["home"] / "private" / "blobs").as_uri(),
        repr=False,
        description="Where bytes are stored: file:///, s3://, gs:// or az://.",
    )
    log_key_file: Directory = Field(
        default_factory=lambda data: data["home"] / "private" / "log.key",
        description="The key that signs the audit log.",
    )
    mlflow_url: str | None = Field(
        default=None,
        repr=False,
        description="The MLflow server that training runs link to. Workers without a setting of "
        "their own get it with their work, without a user name or password in it.",
    )
    public_url: str | None = Field(
        default=None,
        description="The address people use, where it differs from host and port, as behind a "
        "proxy.",
    )
    max_json_bytes: int = Field(
        default=1 << 20, ge=1024, description="The largest JSON body accepted, in bytes."
    )
    max_blob_bytes: int = Field(
        default=64 << 30, ge=1024, description="The largest single file accepted, in bytes."
    )
    lease_seconds: int = Field(
        default=60,
        ge=5,
        le=3600,
        description="Seconds a trainer may be silent before its work goes to another.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The lowest level that is logged."
    )

    @property
    def private(self) -> Path:
        """The directory of keys, tokens and blobs, with mode 0700."""
        return self.home / "private"

    @property
    def url(self) -> str:
        """The address people and machines use."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")


def load(**overrides: Any) -> Settings:
    """The settings from the environment and the secret files; `overrides` that are not None win.

    Raises Invalid `bad-setting`, which names the variable but not its value: it may be a password.
    """
    explicit = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(_secrets_dir=SECRETS if SECRETS.is_dir() else None, **explicit)
    except ValidationError as error:
        wrong = [entry for entry in error.errors() if entry["type"] != "default_factory_not_called"]
        text = "; ".join(
            f"{PREFIX}{str(entry['loc'][0]).upper()}: {entry['msg']}" for entry in wrong
        )
        raise Invalid("bad-setting", f"{text}.") from None

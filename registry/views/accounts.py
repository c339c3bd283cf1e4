"""People, services, their tokens and keys, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class GrantView:
    """One role in one team; a null team means every team.

    The token of a gateway may be bound to one environment.
    """

    role: str
    team: str | None
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class KeyView:
    """An enrolled Ed25519 public key.

    `id` is the first 16 hex digits of its SHA-256, `public_key` the base64 of its 32 bytes.
    """

    id: str
    account: str
    label: str
    public_key: str
    enrolled_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class AccountView:
    """A person or a service."""

    id: UUID
    name: str
    kind: str
    grants: list[GrantView]
    keys: list[KeyView]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token; `token` is the secret, shown once when it is created and null from then on."""

    id: str
    account: str
    grants: list[GrantView]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    token: str | None = None

"""People and services, their tokens and signing keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from registry.client.transport import Transport
from registry.views.accounts import AccountView, KeyView, TokenView

Sign = Callable[[dict[str, Any]], tuple[str, str]]
"""Signs a document under one context that it is bound to; returns the key id and the signature.

The signature is base64 text.
"""


class Accounts(Transport):
    """Who may use the registry."""

    def me(self) -> AccountView:
        """Return the account that this token belongs to."""
        return self._get("/me", AccountView)

    def create_account(
        self, name: str, roles: Sequence[str], team: str | None = None
    ) -> AccountView:
        """Create a person or a service. Needs the role admin.

        The roles of people are admin, engineer, reviewer and auditor; those of services are trainer
        and gateway.
        """
        return self._post(
            "/accounts", AccountView, {"name": name, "roles": list(roles), "team": team}
        )

    def accounts(self) -> list[AccountView]:
        """Return every account with its grants and keys."""
        return self._get("/accounts", list[AccountView])

    def create_token(
        self,
        account: str,
        roles: Sequence[str],
        team: str | None = None,
        days: int = 30,
        environment: str | None = None,
    ) -> TokenView:
        """Create a token for an account. Only this answer contains its secret. Needs admin."""
        body = {
            "account": account,
            "roles": list(roles),
            "team": team,
            "days": days,
            "environment": environment,
        }
        return self._post("/tokens", TokenView, body)

    def tokens(self) -> list[TokenView]:
        """Return all tokens, without their secrets."""
        return self._get("/tokens", list[TokenView])

    def revoke_token(self, token_id: str) -> None:
        """Revoke a token at once. Needs admin."""
        self._delete(f"/tokens/{token_id}")

    def enroll_key(self, public_text: str, label: str, sign: Sign) -> KeyView:
        """Enrol a public key (base64 of 32 bytes) for your own account.

        A signature over the account and the key proves that you hold the private key.
        """
        _, proof = sign({"account": str(self.me().id), "public_key": public_text})
        return self._post(
            "/keys", KeyView, {"public_key": public_text, "label": label, "proof": proof}
        )

    def keys(self) -> list[KeyView]:
        """Return the enrolled keys."""
        return self._get("/keys", list[KeyView])

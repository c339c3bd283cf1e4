"""People and services, their tokens and signing keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from registry.client.transport import Transport
from registry.views.accounts import AccountView, KeyView, TokenView

# Signs a document under one context it is already bound to: -> (key id, base64 signature).
Sign = Callable[[dict[str, Any]], tuple[str, str]]


class Accounts(Transport):
    """Who may come in."""

    def me(self) -> AccountView:
        """The account this token speaks for."""
        return self._get("/me", AccountView)

    def create_account(
        self, name: str, roles: Sequence[str], team: str | None = None
    ) -> AccountView:
        """Make a person (admin, engineer, reviewer, auditor) or a service (trainer, gateway). Needs
        admin.
        """
        return self._post(
            "/accounts", AccountView, {"name": name, "roles": list(roles), "team": team}
        )

    def accounts(self) -> list[AccountView]:
        """Everybody, with grants and keys."""
        return self._get("/accounts", list[AccountView])

    def create_token(
        self,
        account: str,
        roles: Sequence[str],
        team: str | None = None,
        days: int = 30,
        environment: str | None = None,
    ) -> TokenView:
        """Mint a token for an account; its secret is in the answer, once. Needs admin."""
        body = {
            "account": account,
            "roles": list(roles),
            "team": team,
            "days": days,
            "environment": environment,
        }
        return self._post("/tokens", TokenView, body)

    def tokens(self) -> list[TokenView]:
        """All tokens, without their secrets."""
        return self._get("/tokens", list[TokenView])

    def revoke_token(self, token_id: str) -> None:
        """End a token at once. Needs admin."""
        self._delete(f"/tokens/{token_id}")

    def enroll_key(self, public_text: str, label: str, sign: Sign) -> KeyView:
        """Enrol a public key (base64 of 32 bytes) as one's own, proving by a signature that one
        holds it.
        """
        _, proof = sign({"account": str(self.me().id), "public_key": public_text})
        return self._post(
            "/keys", KeyView, {"public_key": public_text, "label": label, "proof": proof}
        )

    def keys(self) -> list[KeyView]:
        """Enrolled keys."""
        return self._get("/keys", list[KeyView])

"""Reviews: submit a version, list and show reviews, vote with a signature."""

from __future__ import annotations

import secrets
from typing import Literal

from registry.client.accounts import Sign
from registry.client.transport import SLOW, Transport
from registry.rules.reviews import commitment
from registry.views.reviews import DecisionDraft, ReviewPage, ReviewView, SubmittedView

Verdict = Literal["approve", "reject", "request_changes"]
SALT_BYTES = 16


class Reviews(Transport):
    """The reviews of versions."""

    def submit(self, ref: str, environment: str, use_case: str, note: str) -> SubmittedView:
        """Open a review of a version for an environment and a use case."""
        body = {"ref": ref, "environment": environment, "use_case": use_case, "note": note}
        return self._post("/reviews", SubmittedView, body, timeout=SLOW)

    def reviews(self, state: str | None = None) -> list[ReviewView]:
        """Return the reviews in one state, or all, newest first."""
        return list(self._items("/reviews", ReviewPage, state=state))

    def review(self, number: int) -> ReviewView:
        """Return one review with its evidence, verdict and votes."""
        return self._get(f"/reviews/{number}", ReviewView)

    def draft(self, number: int) -> DecisionDraft:
        """Return the decision that this person would sign, without its verdict and reason."""
        return self._get(f"/reviews/{number}/decision", DecisionDraft)

    def vote(self, number: int, verdict: Verdict, reason: str, sign: Sign) -> ReviewView:
        """Vote on a review with a signature over the whole decision, as it is at this moment.

        `sign` is bound to the context "decision". The decision contains the reason only as a salted
        commitment, so that the reason can be erased later and the signature still verifies.
        """
        salt = secrets.token_bytes(SALT_BYTES)
        completed = {"verdict": verdict, "reason_commitment": commitment(salt, reason)}
        decision = {**self.draft(number).decision, **completed}
        key, signature = sign(decision)
        body = {
            "decision": decision,
            "reason": reason,
            "salt": salt.hex(),
            "key": key,
            "signature": signature,
        }
        return self._post(f"/reviews/{number}/votes", ReviewView, body)

    def withdraw(self, number: int, reason: str) -> ReviewView:
        """Withdraw a submission."""
        return self._post(f"/reviews/{number}/withdraw", ReviewView, {"reason": reason})

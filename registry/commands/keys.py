"""Enrol signing keys."""

from __future__ import annotations

import base64

from registry.db.accounts import SigningKey
from registry.db.store import Store
from registry.errors import Invalid, Unverified
from registry.proof import keys
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.views.accounts import KeyView


def enroll(store: Store, actor: Actor, public_key: str, label: str, proof: str) -> KeyView:
    """Enrol an Ed25519 public key for the caller, who proves by a signature that it is theirs.

    `public_key` is base64 of 32 bytes, `proof` the signature over the enrolment. Raises Invalid for
    a malformed key, Unverified for a wrong proof, Conflict when the key is enrolled already.
    """
    try:
        raw = base64.b64decode(public_key, validate=True)
    except ValueError:  # binascii.Error is a ValueError; characters beyond ASCII raise it plain
        raw = b""
    if len(raw) != 32:
        raise Invalid(
            "bad-key", "That is not an Ed25519 public key.", "Send base64 of its 32 raw bytes."
        )
    with store.write(actor, Action.KEY_ENROLL) as tx:
        document = {"account": str(actor.account), "public_key": public_key}
        if actor.account is None or not keys.verify_document(public_key, document, "enrol", proof):
            raise Unverified(
                "bad-signature",
                "The proof does not show that you hold this key.",
                "Sign the enrolment with the private half of the key that you enrol.",
            )
        key = tx.add(
            SigningKey(
                id=keys.key_id(raw),
                account_id=actor.account,
                label=label[:80],
                public_key=public_key,
                proof=proof,
                enrolled_at=tx.now,
                revoked_at=None,
            )
        )
        tx.audit(f"key:{key.id}", account=actor.account)
        return KeyView(key.id, actor.name, key.label, public_key, tx.now, None)

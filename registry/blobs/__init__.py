"""Bytes by digest: the store, drafts on their way in, uploads that can be resumed."""

"""Bytes by digest: the store, drafts of new blobs, and uploads that can be resumed."""

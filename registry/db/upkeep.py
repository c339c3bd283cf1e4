"""The tables `Store.upkeep` may write: bookkeeping that decides nothing. Grants hold the list in
PostgreSQL too.
"""

UPKEEP_TABLES = frozenset(
    {"lease", "token_use", "web_session", "event_pending", "leaf", "tree_head", "blob_sender"}
)

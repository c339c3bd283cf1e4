"""PostgreSQL's refusals have names."""

from __future__ import annotations

from sqlalchemy import UniqueConstraint

import registry.db  # noqa: F401 - fills the metadata
from registry.db.refusals import CONSTRAINTS
from registry.db.table import NAMING, Table

NEVER_HIT = {
    "uq_account_name_commitment": "salted",
    "uq_eval_metric_eval_run_id_name": "written once, under the run's lock",
    "uq_event_id_txid": "a random id",
    "uq_event_place": "a number that PostgreSQL assigns",
    "uq_leaf_event_id": "the sequencer alone writes leaves",
    "uq_legal_hold_number": "a number that PostgreSQL assigns",
    "uq_lineage_edge_child_id_parent_id_relation": "written once, with a new child",
    "uq_node_id_seq": "a random id",
    "uq_node_seq": "a number that PostgreSQL assigns",
    "uq_quota_number": "a number that PostgreSQL assigns",
    "uq_retention_setting_number": "a number that PostgreSQL assigns",
    "uq_review_number": "a number that PostgreSQL assigns",
    "uq_token_secret_hash": "the hash of a random secret",
    "uq_version_file_version_id_path": "written once, with a new version",
}
"""Unique constraints that no two commands can violate, however they race."""


def unique_constraints() -> set[str]:
    names = set()
    for table in Table.metadata.tables.values():
        for constraint in table.constraints:
            if isinstance(constraint, UniqueConstraint):
                columns = "_".join(column.name for column in constraint.columns)
                names.add(
                    NAMING["uq"].replace("%(column_0_N_name)s", columns)
                    % {"table_name": table.name}
                )
        names |= {str(index.name) for index in table.indexes if index.unique}
    return names


def test_every_unique_constraint_that_a_race_can_hit_has_a_name() -> None:
    """Without one, the slower of two equal commands would get a Fault."""
    assert unique_constraints() - CONSTRAINTS.keys() == NEVER_HIT.keys()

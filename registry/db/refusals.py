"""Turn PostgreSQL's refusals into named errors, by constraint name or SQLSTATE (our class CS)."""

from __future__ import annotations

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from registry.errors import (
    Conflict,
    Fault,
    Invalid,
    RegistryError,
    Unavailable,
    problem,
)

CONSTRAINTS: dict[str, tuple[str, str]] = {
    "uq_rollout_active": ("rollout-active", "This channel already has an active rollout."),
    "uq_review_live": (
        "review-live",
        "This version already has an open or approved review in this environment.",
    ),
    "uq_vote_review_id_account_id": ("already-voted", "You have voted in this review already."),
    "uq_eval_run_active": ("eval-run-active", "This eval run is queued or running already."),
    "uq_recall_node_id": ("already-recalled", "This has been recalled already."),
    "pk_deprecation": ("already-deprecated", "This has been deprecated already."),
    "uq_route_generation_open": (
        "stale-generation",
        "Somebody changed this channel at the same moment.",
    ),
    "uq_route_generation_channel_id_generation": (
        "stale-generation",
        "Somebody changed this channel at the same moment.",
    ),
    "uq_line_team_name": ("name-taken", "That name was taken at the same moment."),
    "uq_version_line_id_number": ("try-again", "Another version was numbered at the same moment."),
    "uq_version_line_id_manifest_digest": (
        "try-again",
        "The same bytes were added at the same moment.",
    ),
    "uq_version_training_run_id_step": (
        "step-published",
        "This step of the training run is published already.",
    ),
    "uq_signing_key_public_key": ("key-enrolled", "That key is enrolled already."),
    "pk_signing_key": ("key-enrolled", "That key is enrolled already."),
    "uq_personal_account_name": ("account-exists", "There is already an account of that name."),
    **dict.fromkeys(
        (
            "uq_dataset_team_name",
            "uq_dataset_version_dataset_id_number",
            "uq_dataset_version_dataset_id_blob_id",
            "uq_eval_suite_team_name",
            "uq_eval_suite_version_suite_id_number",
            "uq_eval_suite_version_suite_id_digest",
            "uq_policy_version_environment_number",
            "uq_channel_line_id_environment_name",
            "uq_node_ref",
            "uq_serving_profile_version_id_digest",
            "uq_role_grant_account_id_role_team",
            "uq_version_tag_version_id_key",
            "uq_use_case_version_use_case_id_number",
        ),
        ("try-again", "Somebody made the same thing at the same moment."),
    ),
    "pk_tombstone": ("already-deleted", "This was deleted at the same moment."),
    "uq_retention_class_name": (
        "class-exists",
        "There is a retention class of that name, and classes never change.",
    ),
    "uq_use_case_team_name": ("use-case-exists", "There is a use case of that name."),
}
"""Constraint -> the kind of problem, and what happened. The catalogue has the fix."""
SQLSTATES = {
    "CS001": "unaudited-write",
    "CS002": "illegal-transition",
    "CS003": "frozen",
    "CS004": "not-servable",
    "CS005": "stale-generation",
    "CS006": "vote-refused",
    "CS007": "quorum-not-met",
    "CS008": "log-append-only",
    "CS009": "policy-replaced",
    "CS010": "unfit-parent",
    "CS011": "another-use-case",
    "CS021": "held",
    "CS022": "kept",
    "CS023": "needed",
    "CS024": "quota-exceeded",
    "CS025": "blob-missing",
    "CS026": "shorter-retention",
    "CS027": "reason-missing",
    "CS040": "outdated-evidence",
}
"""SQLSTATE that one of our triggers raises -> the kind of problem."""

UNSTORABLE = ("22003", "22008", "22P05", "22021", "")
"""SQLSTATEs of values that PostgreSQL cannot store.

They are a number beyond its column, a time beyond the calendar, and a NUL in JSON; without a
SQLSTATE, a NUL in a text, which psycopg itself refuses.
"""


def named(error: DBAPIError) -> RegistryError:
    """The named error behind a database error.

    An unknown one becomes a Fault that does not show the raw message.
    """
    origin = error.orig
    state = getattr(origin, "sqlstate", None) or ""
    message = getattr(getattr(origin, "diag", None), "message_primary", None) or ""
    constraint = getattr(getattr(origin, "diag", None), "constraint_name", None) or ""
    if state in SQLSTATES:
        return problem(SQLSTATES[state], message)
    if isinstance(error, IntegrityError) and constraint in CONSTRAINTS:
        return problem(*CONSTRAINTS[constraint])
    if isinstance(error, DataError) and state in UNSTORABLE:
        # REST and the other interfaces refuse most of these values earlier, by their own names.
        return Invalid("bad-value")
    if state in ("40001", "40P01", "55P03"):
        return Conflict("try-again")
    if state == "57014":
        return Unavailable("database-slow")
    if state == "25006":
        return Fault("write-in-query")
    if "permission denied to set role" in str(origin) or (
        "does not exist" in str(origin) and "role" in str(origin)
    ):
        return Unavailable("database-role-missing")
    if (
        error.connection_invalidated
        or isinstance(error, OperationalError)
        or state.startswith(("08", "57"))
    ):
        return Unavailable("database-away")
    return Fault("database-refused", sqlstate=state, constraint=constraint)

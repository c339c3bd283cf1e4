"""What PostgreSQL's own refusals mean: constraint names and our SQLSTATEs (class CS) to named
errors.
"""

from __future__ import annotations

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from registry.errors import (
    Conflict,
    Fault,
    Invalid,
    Refused,
    RegistryError,
    Unavailable,
    Unverified,
)

AGAIN = "Look at the present state and decide again."

CONSTRAINTS: dict[str, tuple[str, str, str]] = {
    "uq_rollout_active": (
        "rollout-active",
        "This channel already has an active rollout.",
        "Promote it or roll it back first (countersign canary status).",
    ),
    "uq_review_live": (
        "review-live",
        "This version already has an open or approved review in this environment.",
        "Vote in that review, or withdraw it first (countersign review ls).",
    ),
    "uq_vote_review_id_account_id": (
        "already-voted",
        "You have voted in this review.",
        "A vote never changes; withdraw the review and submit again if it must.",
    ),
    "uq_eval_run_active": (
        "eval-run-active",
        "This eval run is already queued or running.",
        "Follow it with countersign eval ls.",
    ),
    "uq_recall_node_id": (
        "already-recalled",
        "This has been recalled already.",
        "Nothing more is needed.",
    ),
    "pk_deprecation": (
        "already-deprecated",
        "This has been deprecated already.",
        "Nothing more is needed.",
    ),
    "uq_route_generation_open": (
        "stale-generation",
        "Somebody changed this channel at the same moment.",
        AGAIN,
    ),
    "uq_route_generation_channel_id_generation": (
        "stale-generation",
        "Somebody changed this channel at the same moment.",
        AGAIN,
    ),
    "uq_line_team_name": (
        "name-taken",
        "That name was taken at the same moment.",
        "Run the command again.",
    ),
    "uq_version_line_id_number": (
        "try-again",
        "Another version was numbered at the same moment.",
        "Run the command again.",
    ),
    "uq_version_line_id_manifest_digest": (
        "try-again",
        "The same bytes were added at the same moment.",
        "Run the command again; it will find them.",
    ),
    "uq_version_training_run_id_step": (
        "step-published",
        "This step of the training run is published already.",
        "Use the version that is there.",
    ),
    "uq_signing_key_public_key": (
        "key-enrolled",
        "That key is enrolled already.",
        "Use it, or make a new one.",
    ),
    "pk_signing_key": (
        "key-enrolled",
        "That key is enrolled already.",
        "Use it, or make a new one.",
    ),
    "uq_personal_account_name": (
        "account-exists",
        "There is an account of that name.",
        "Use it, or another name.",
    ),
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
        ),
        (
            "try-again",
            "Somebody made the same thing at the same moment.",
            "Run the command again; it will find it.",
        ),
    ),
    "pk_tombstone": (
        "already-deleted",
        "This was deleted at the same moment.",
        "Nothing more is needed.",
    ),
    "uq_retention_class_name": (
        "class-exists",
        "There is a retention class of that name, and classes never change.",
        "Use it, or make another of a new name.",
    ),
    "uq_use_case_team_name": (
        "use-case-exists",
        "There is a use case of that name.",
        "Use it, or another name.",
    ),
}
SQLSTATES: dict[str, tuple[type[RegistryError], str]] = {
    "CS001": (Fault, "unaudited-write"),
    "CS002": (Refused, "illegal-transition"),
    "CS003": (Refused, "frozen"),
    "CS004": (Refused, "not-servable"),
    "CS005": (Conflict, "stale-generation"),
    "CS006": (Refused, "vote-refused"),
    "CS007": (Refused, "quorum-not-met"),
    "CS008": (Fault, "log-append-only"),
    "CS009": (Conflict, "policy-replaced"),
    "CS010": (Refused, "unfit-parent"),
    "CS021": (Refused, "held"),
    "CS022": (Refused, "kept"),
    "CS023": (Refused, "needed"),
    "CS024": (Refused, "quota-exceeded"),
    "CS025": (Unverified, "blob-missing"),
    "CS026": (Refused, "shorter-retention"),
}


# A number beyond its column, a time beyond the calendar, a NUL in JSON; and a NUL in a text, which
# psycopg itself refuses.
UNSTORABLE = ("22003", "22008", "22P05", "22021", "")


def named(error: DBAPIError) -> RegistryError:
    """The named error behind a database error; what we do not know is a Fault, and says nothing
    raw.
    """
    origin = error.orig
    state = getattr(origin, "sqlstate", None) or ""
    message = getattr(getattr(origin, "diag", None), "message_primary", None) or ""
    constraint = getattr(getattr(origin, "diag", None), "constraint_name", None) or ""
    if state in SQLSTATES:
        cls, kind = SQLSTATES[state]
        return cls(
            kind,
            message,
            AGAIN if cls is not Fault else "This is our fault; report the request id.",
        )
    if isinstance(error, IntegrityError) and constraint in CONSTRAINTS:
        kind, detail, fix = CONSTRAINTS[constraint]
        return Conflict(kind, detail, fix)
    if isinstance(error, DataError) and state in UNSTORABLE:
        # A NUL in a text, a number beyond its column: the doors refuse most of these by name
        # before.
        return Invalid(
            "bad-value",
            "A value of this request can be stored in no row.",
            "Leave out NUL characters and numbers beyond 2**31 - 1.",
        )
    if state in ("40001", "40P01", "55P03"):
        return Conflict(
            "try-again",
            "Somebody worked on the same thing at the same moment.",
            "Run the command again.",
        )
    if state == "57014":
        return Unavailable(
            "database-slow", "The database took too long and was stopped.", "Try again in a moment."
        )
    if state == "25006":
        return Fault(
            "write-in-query",
            "A query tried to write and PostgreSQL refused it.",
            "This is our fault; report the request id.",
        )
    if "permission denied to set role" in str(origin) or (
        "does not exist" in str(origin) and "role" in str(origin)
    ):
        return Unavailable(
            "database-role-missing",
            "The database user may not act as Countersign's database roles.",
            "Run countersign migrate as the database's owner; see docs/decisions on database "
            "roles.",
        )
    if (
        error.connection_invalidated
        or isinstance(error, OperationalError)
        or state.startswith(("08", "57"))
    ):
        return Unavailable(
            "database-away",
            "The database is away for the moment; nothing was half-written.",
            "Wait a few seconds, look whether the change is there, and try again.",
        )
    return Fault(
        "database-refused",
        "The database refused this change.",
        "This is our fault; report the request id.",
        sqlstate=state,
        constraint=constraint,
    )

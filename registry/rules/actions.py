"""The names of all acts, as `noun:verb`.

Permissions, audit actions, events of the log and headings of the documentation use the same names.
"""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """Everything that changes the registry. A test proves that exactly one command uses each."""

    ACCOUNT_CREATE = "account:create"
    TOKEN_CREATE = "token:create"
    TOKEN_REVOKE = "token:revoke"
    KEY_ENROLL = "key:enroll"
    USE_CASE_REGISTER = "use-case:register"
    USE_CASE_UPDATE = "use-case:update"
    POLICY_PUBLISH = "policy:publish"
    VERSION_REGISTER = "version:register"
    DATASET_REGISTER = "dataset:register"
    PROFILE_DEFINE = "profile:define"
    SUITE_FREEZE = "suite:freeze"
    TRAINING_QUEUE = "training:queue"
    EVAL_QUEUE = "eval:queue"
    WORK_LEASE = "work:lease"
    WORK_REQUEUE = "work:requeue"
    WORK_RECLAIM = "work:reclaim"
    WORK_FAIL = "work:fail"
    WORK_CANCEL = "work:cancel"
    TRAINING_FINISH = "training:finish"
    EVAL_FINISH = "eval:finish"
    REVIEW_SUBMIT = "review:submit"
    REVIEW_VOTE = "review:vote"
    REVIEW_WITHDRAW = "review:withdraw"
    REVIEW_EXPIRE = "review:expire"
    ROLLOUT_START = "rollout:start"
    ROLLOUT_PROMOTE = "rollout:promote"
    CHANNEL_ROLL_BACK = "channel:roll-back"
    RECALL = "version:recall"
    DEPRECATE = "version:deprecate"
    TAG_SET = "tag:set"
    RETENTION_DEFINE = "retention:define"
    RETENTION_ASSIGN = "retention:assign"
    HOLD_PLACE = "hold:place"
    HOLD_LIFT = "hold:lift"
    VERSION_DELETE = "version:delete"
    DRAFT_DISCARD = "draft:discard"
    DRAFT_EXPIRE = "draft:expire"
    BLOB_COLLECT = "blob:collect"
    QUOTA_SET = "quota:set"


STEP_UP = frozenset(
    {
        Action.REVIEW_VOTE,
        Action.ROLLOUT_PROMOTE,
        Action.RECALL,
        Action.DEPRECATE,
        Action.HOLD_LIFT,
        Action.VERSION_DELETE,
    }
)
"""Acts that require a fresh sign-in: a personal token created within the last twelve hours."""

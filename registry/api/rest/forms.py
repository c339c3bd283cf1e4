"""The types of names, numbers and texts, as the OpenAPI document describes them.

The rules decide and explain. These types repeat the rules' patterns only in the document, so that a
request that follows it has the right form, and a refusal keeps the kind and the text of its rule.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from registry.commands.use_cases import TIERS
from registry.db.reviews import STATES as REVIEW_STATES
from registry.db.training_runs import STATES as RUN_STATES
from registry.rules import evals, profiles, recipes, refs, searches, tags
from registry.rules.actors import PEOPLE, SERVICE_ROLES
from registry.rules.engines import ENGINES
from registry.rules.retention import MAX_DRAFT_DAYS, MAX_KEEP_DAYS
from registry.rules.reviews import VERDICTS
from registry.rules.versions import State as VersionState

TEXT = r"^[^\x00]*$"
"""Any text that PostgreSQL can store."""
PRINTABLE = r"[^\x00-\x1f\x7f-\xa0\u2028\u2029]"
WORDS = r"^[^\x00]*[^\s\x00][^\x00]*$"
"""A text that is more than white space."""


def _text(**schema: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **schema})


def _matching(*patterns: re.Pattern[str] | str) -> WithJsonSchema:
    either = "|".join(each if isinstance(each, str) else each.pattern for each in patterns)
    return _text(pattern=f"^(?:{either})$")


_NAME = refs.NAME.pattern
_LINE = f"{_NAME}/{_NAME}"
_REF = (
    f"{refs.DIGEST.pattern}|{_LINE}(?:@(?:{refs.VERSION.pattern}|{refs.DIGEST.pattern}|{_NAME}))?"
)
_UNPINNED = r"(?!.*\.v[1-9][0-9]{0,8}$)"
_PULLABLE = rf"(?!.*(?:--|\.\.|\.git(?:/|$)))(?!(?:{'|'.join(sorted(refs.RESERVED_TEAMS))})/)"
_UNRESERVED = f"(?!(?:{'|'.join(tags.RESERVED)})(?::|$))"
_METRIC = r"[A-Za-z0-9][A-Za-z0-9_.@/-]{0,80}(?:>=|<=|=|>|<)-?[0-9]{1,15}(?:\.[0-9]{1,15})?"
_PROFILE = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

Short = Annotated[str, Field(max_length=200), _text(pattern=TEXT, maxLength=200)]
Text = Annotated[str, Field(max_length=20_000), _text(pattern=TEXT, maxLength=20_000)]
Words = Annotated[str, Field(max_length=20_000), _text(pattern=WORDS, maxLength=20_000)]
"""A reason, or another text that must not be empty."""
Reasoned = Annotated[
    str, Field(max_length=20_000), _text(pattern=r"^[^\s\x00][^\x00]{8,3998}[^\s\x00]$")
]
"""The reason of a decision or a recall: 10 to 4000 characters."""
Title = Annotated[str, Field(max_length=200), _text(pattern=WORDS, maxLength=200)]
Case = Annotated[str, Field(max_length=200), _text(pattern=rf"^(?=.*\S){PRINTABLE}{{1,200}}$")]
TagValue = Annotated[
    str, Field(min_length=1, max_length=256), _text(pattern=f"^{PRINTABLE}{{1,256}}$")
]

Name = Annotated[str, Field(max_length=200), _matching(_NAME)]
"""The name of a team, an account or a retention class."""
Line = Annotated[str, Field(max_length=200), _matching(_LINE)]
NewLine = Annotated[str, Field(max_length=200), _text(pattern=f"^{_UNPINNED}{_PULLABLE}{_LINE}$")]
"""A line that need not exist yet."""
Ref = Annotated[str, Field(max_length=200), _matching(_REF)]
"""Anything that names a version."""
Subject = Annotated[str, Field(max_length=200), _matching(f"(?:dataset:)?(?:{_REF})")]
"""A version or a data set version."""
Kept = Annotated[str, Field(max_length=200), _matching(f"(?:dataset:)?(?:{_REF})")]
"""A version, a line, a data set or one of its versions."""
Keeper = Annotated[str, Field(max_length=200), _matching(_NAME, f"(?:dataset:)?{_LINE}")]
"""A team, a line or a data set."""
Node = Annotated[str, _matching(_REF, r"(?:dataset|suite|eval-run):[^\x00]{1,200}")]
"""Anything in the lineage graph."""
Channel = Annotated[
    str, Field(max_length=200), _text(pattern=f"^(?!v[0-9]+$|v0|sha256|draft-){_NAME}$")
]
Environment = Annotated[str, Field(max_length=200), _text(enum=list(refs.ENVIRONMENTS))]
RiskTier = Annotated[str, Field(max_length=200), _text(enum=list(TIERS))]
Metric = Annotated[str, Field(max_length=200), _text(enum=list(evals.METRICS))]
Digest = Annotated[str, _matching("(?:sha256:)?[0-9a-f]{64}")]
ProfileName = Annotated[str, _matching(_PROFILE, profiles.DIGEST)]
Tag = Annotated[str, _text(pattern=f"^{_UNRESERVED}{tags.KEY.pattern}$")]
TokenId = Annotated[str, _matching("[0-9a-f]{12}")]
PublicKey = Annotated[str, Field(max_length=200), _matching("[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")]
Signature = Annotated[str, Field(max_length=200), _matching("[A-Za-z0-9+/]{85}[AQgw]==")]
KeyId = Annotated[str, Field(max_length=200), _text(pattern=TEXT, maxLength=200)]
Salt = Annotated[str, Field(max_length=200), _matching("[0-9a-f]{32}")]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Number = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 2**31 - 1})]
"""The number of a review or a hold."""
Limit = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 200})]
"""Rows of a page."""
Cursor = Annotated[str, _text(description="The `next` of the previous page, unchanged.")]

_ROLE_LISTS = [
    {"type": "array", "minItems": 1, "items": {"enum": sorted(role.value for role in roles)}}
    for roles in (PEOPLE, SERVICE_ROLES)
]
Roles = Annotated[list[Short], WithJsonSchema({"anyOf": _ROLE_LISTS})]
"""Roles of people or of services; an account never has both."""
Share = Annotated[
    int,
    Field(strict=True, ge=-(2**31), lt=2**31),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 10_000}),
]
"""A share of traffic in basis points (hundredths of a percent)."""
Days = Annotated[
    int,
    Field(strict=True, ge=0, le=2**31 - 1),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 365}),
]
KeepDays = Annotated[
    int,
    Field(strict=True, ge=0, le=2**31 - 1),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_KEEP_DAYS}),
]
DraftDays = Annotated[
    int,
    Field(strict=True, ge=0, le=2**31 - 1),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_DRAFT_DAYS}),
]
Plain = Annotated[str, _text(pattern=TEXT)]
ReviewState = Annotated[str, _text(enum=["decided", "waiting", *REVIEW_STATES])]
RunState = Annotated[str, _text(enum=list(RUN_STATES))]
Moment = Annotated[datetime, WithJsonSchema({"type": "string", "format": "date-time"})]
PolicyText = Annotated[str, Field(max_length=100_000), _text(pattern=WORDS, maxLength=100_000)]


class Filter:
    """The filters of a search; an empty one is ignored."""

    _any = _text(pattern=TEXT, maxLength=400)
    Words = Annotated[str, _text(pattern=r"^[^\x00]*[A-Za-z0-9][^\x00]*$", maxLength=400)]
    Text = Annotated[str, _any]
    Kind = Annotated[str, _text(enum=list(searches.KINDS))]
    State = Annotated[str, _text(enum=[state.value for state in VersionState])]
    Tag = Annotated[str, _text(pattern=rf"^{_UNRESERVED}{tags.KEY.pattern}(?::[^\x00]{{1,256}})?$")]
    Bound = Annotated[str, _text(pattern=f"^{_METRIC}$")]
    Moment = Annotated[
        str,
        WithJsonSchema({"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}),
    ]
    Digest = Annotated[str, _matching(searches.HEX)]
    Sort = Annotated[str, _matching("created|name", searches.SORT)]


Decision = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"verdict": {"enum": list(VERDICTS)}},
            "required": ["verdict"],
            "additionalProperties": True,
        }
    ),
]
Decoding = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "template": {"enum": ["chat", "plain"]},
                "max_new_tokens": {"type": "integer", "minimum": 1, "maximum": 4096},
                "system": {"anyOf": [{"type": "string", "pattern": TEXT}, {"type": "null"}]},
                "stop": {
                    "type": "array",
                    "maxItems": evals.MAX_STOPS,
                    "uniqueItems": True,
                    "items": {
                        "type": "string",
                        "pattern": rf"^[^\x00]{{1,{evals.MAX_STOP_CHARACTERS}}}$",
                    },
                },
            },
            "additionalProperties": False,
        }
    ),
]
RecipeKeys = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "description": "How to train. Keys must not contradict each other.",
            "propertyNames": {"enum": list(recipes.FIELDS)},
            "required": ["steps", "batch_size", "learning_rate"],
            "properties": {
                "method": {"enum": ["lora"]},
                "rank": {"type": "integer", "minimum": 1, "maximum": recipes.MAX_RANK},
                "steps": {"type": "integer", "minimum": 1, "maximum": recipes.MAX_STEPS},
                "batch_size": {"type": "integer", "minimum": 1, "maximum": 4096},
                "learning_rate": {"type": "number", "minimum": 1e-9, "exclusiveMaximum": 1},
                "template": {"enum": ["chat", "plain"]},
                "dtype": {"enum": ["float32", "bfloat16"]},
            },
            "additionalProperties": True,
        }
    ),
]
_PROFILE_DIGEST = {"type": ["string", "null"], "pattern": f"^{profiles.DIGEST.pattern}$"}
ProfileParts = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "required": ["engine", "build"],
            "properties": {
                "engine": {"enum": list(ENGINES)},
                "build": {"type": "string", "pattern": f"^{profiles.BUILD.pattern}$"},
                "dtype": {"enum": list(profiles.DTYPES)},
                "quantisation": {"enum": [*profiles.QUANTISATIONS, None]},
                "system_prompt": _PROFILE_DIGEST,
                "retrieval_index": _PROFILE_DIGEST,
                "decoding": {
                    "type": "object",
                    "properties": {
                        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
                        "top_p": {"type": "number", "minimum": 0.0001, "maximum": 1},
                        "top_k": {"type": "integer", "minimum": 1, "maximum": 100_000},
                        "repetition_penalty": {"type": "number", "minimum": 0.1, "maximum": 2},
                        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
                        "seed": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
                        "stop": {
                            "type": "array",
                            "maxItems": profiles.MAX_STOPS,
                            "items": {
                                "type": "string",
                                "pattern": r"^[^\x00]{1,200}$",
                            },
                        },
                    },
                    "additionalProperties": False,
                },
                "policy_checks": {
                    "type": "array",
                    "maxItems": profiles.MAX_CHECKS,
                    "uniqueItems": True,
                    "items": {"type": "string", "pattern": f"^{profiles.DIGEST.pattern}$"},
                },
            },
            "additionalProperties": False,
        }
    ),
]

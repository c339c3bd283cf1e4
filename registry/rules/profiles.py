"""A serving profile: everything an answer depends on besides the prompt, as one strict document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.errors import Invalid
from registry.fields import (
    Field,
    by_path,
    choice,
    described,
    filled,
    integer,
    list_of,
    nullable,
    number,
    pattern,
    problems,
    table,
    text,
)
from registry.rules.engines import ENGINES

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
BUILD = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")
DTYPES = ("bfloat16", "float16", "float32")
QUANTISATIONS = ("awq", "bitsandbytes", "compressed-tensors", "fp8", "gptq")
MAX_STOPS = 16
MAX_CHECKS = 64
MAX_PROMPT = 256 * 1024
"""Bytes of a system prompt."""

SHA256 = pattern(DIGEST, "sha256:<64 hex digits>")
DECODING: dict[str, Field] = {
    "temperature": number(0, 2).optional(),
    "top_p": number(0.0001, 1).optional(),
    "top_k": integer(1, 100_000).optional(),
    "repetition_penalty": number(0.1, 2).optional(),
    "max_tokens": integer(1, 1_000_000).optional(),
    "seed": integer(0, 2**31 - 1).optional(),
    "stop": list_of(text(1, 200), 0, MAX_STOPS).optional(),
}
FIELDS: dict[str, Field] = {
    "engine": choice(*ENGINES),
    "build": pattern(BUILD, "a release, like 0.32.0"),
    "dtype": choice(*DTYPES).optional("bfloat16"),
    "quantisation": choice(None, *QUANTISATIONS).optional(None),
    "system_prompt": nullable(SHA256).optional(None),
    "decoding": table(DECODING).optional({}),
    "retrieval_index": nullable(SHA256).optional(None),
    "policy_checks": list_of(SHA256, 0, MAX_CHECKS, different=True).optional([]),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """The parts of a profile that a caller gives, checked.

    The version and its base are added when it becomes a document.
    """

    parts: Mapping[str, Any]

    def document(self, version: str, base: str | None) -> dict[str, Any]:
        """The whole profile, which is hashed and stored; the same for every way of writing it."""
        return {**self.parts, "format": 1, "version": version, "base": base}


def parse(raw: Any) -> Profile:
    """Read a profile; Invalid `bad-profile` lists everything that is wrong."""
    if wrong := problems(raw, FIELDS):
        raise Invalid(
            "bad-profile",
            described("The profile cannot be used", wrong),
            problems=by_path(wrong),
        )
    whole = filled(raw, FIELDS)
    decoding = dict(whole["decoding"])
    # The order of checks and of stop texts has no meaning, so both are sorted: one profile has one
    # digest.
    if "stop" in decoding:
        decoding["stop"] = sorted(set(decoding["stop"]))
    checks = sorted(whole["policy_checks"])
    return Profile({**whole, "policy_checks": checks, "decoding": decoding})


def check_prompt(digest: str, data: bytes) -> str:
    """Read a system prompt's bytes as the text that a model would read.

    Raises Invalid `bad-prompt` unless they are printable UTF-8 text of at most `MAX_PROMPT` bytes.
    """
    if len(data) > MAX_PROMPT:
        raise Invalid(
            "bad-prompt",
            f"The system prompt sha256:{digest} has more than {MAX_PROMPT:,} bytes.",
            "Shorten it, or give the model documents through a retrieval index.",
        )
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not text.strip() or not all(letter.isprintable() or letter.isspace() for letter in text):
        raise Invalid(
            "bad-prompt",
            f"The system prompt sha256:{digest} is empty, is not UTF-8 text, or contains "
            "control characters.",
            "Save it as plain UTF-8 text.",
        )
    return text


@dataclass(frozen=True, slots=True)
class Difference:
    """One part in which two profiles differ; None stands for a part that a profile lacks."""

    part: str
    before: Any
    after: Any


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Every part in which two documents differ, with each setting of decoding as its own part.

    The list is empty only for the same profile.
    """
    old, new = _flat(before), _flat(after)
    return [
        Difference(part, old.get(part), new.get(part))
        for part in dict.fromkeys([*old, *new])
        if old.get(part) != new.get(part)
    ]


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    parts = {
        key: document[key]
        for key in ("version", "base", *FIELDS)
        if key in document and key != "decoding"
    }
    return parts | {
        f"decoding.{key}": value for key, value in sorted(document.get("decoding", {}).items())
    }

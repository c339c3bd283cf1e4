"""A serving profile: everything an answer depends on besides the prompt, as one strict document."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from registry.errors import Invalid
from registry.rules.engines import ENGINES

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
BUILD = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")
DTYPES = ("bfloat16", "float16", "float32")
QUANTISATIONS = ("awq", "bitsandbytes", "compressed-tensors", "fp8", "gptq")
MAX_STOPS = 16
MAX_CHECKS = 64
MAX_PROMPT = 256 * 1024  # bytes


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and isfinite(value) and low <= value <= high


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _stops(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_STOPS
        and all(isinstance(one, str) and 0 < len(one) <= 200 for one in value)
    )


def _digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None


DECODING: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (_between(0, 2), "a number from 0 to 2"),
    "top_p": (_between(0.0001, 1), "a number above 0, up to 1"),
    "top_k": (_whole(1, 100_000), "a whole number from 1 to 100000"),
    "repetition_penalty": (_between(0.1, 2), "a number from 0.1 to 2"),
    "max_tokens": (_whole(1, 1_000_000), "a whole number from 1 to 1000000"),
    "seed": (_whole(0, 2**31 - 1), "a whole number from 0 to 2147483647"),
    "stop": (_stops, f"a list of at most {MAX_STOPS} texts of 1 to 200 characters"),
}
KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "engine": (lambda value: value in ENGINES, f"one of {', '.join(ENGINES)}"),
    "build": (
        lambda value: isinstance(value, str) and BUILD.fullmatch(value) is not None,
        "a release, like 0.32.0",
    ),
    "dtype": (lambda value: value in DTYPES, f"one of {', '.join(DTYPES)}"),
    "quantisation": (
        lambda value: value is None or value in QUANTISATIONS,
        f"null or {', '.join(QUANTISATIONS)}",
    ),
    "system_prompt": (
        lambda value: value is None or _digest(value),
        "null or sha256:<64 hex digits>",
    ),
    "decoding": (lambda value: isinstance(value, dict), "a table"),
    "retrieval_index": (
        lambda value: value is None or _digest(value),
        "null or sha256:<64 hex digits>",
    ),
    "policy_checks": (
        lambda value: (
            isinstance(value, list)
            and len(value) <= MAX_CHECKS
            and all(map(_digest, value))
            and len(set(value)) == len(value)
        ),
        f"a list of at most {MAX_CHECKS} different sha256:<64 hex digits>",
    ),
}
DEFAULTS: dict[str, Any] = {
    "dtype": "bfloat16",
    "quantisation": None,
    "system_prompt": None,
    "decoding": {},
    "retrieval_index": None,
    "policy_checks": [],
}


@dataclass(frozen=True, slots=True)
class Profile:
    """What a caller asks for, checked; the version and its base are added when it becomes a
    document.
    """

    parts: Mapping[str, Any]

    def document(self, version: str, base: str | None) -> dict[str, Any]:
        """The whole profile by digests, the same for every way of writing it: what is hashed and
        stored.
        """
        return {**self.parts, "format": 1, "version": version, "base": base}


def parse(raw: Any) -> Profile:
    """Read a profile; Invalid (`bad-profile`) names everything that is wrong at once."""
    if not isinstance(raw, Mapping):
        raise Invalid(
            "bad-profile", "The profile is no table of keys.", "Give at least engine and build."
        )
    whole = {**DEFAULTS, **raw}
    problems = [f"{key}: there is no such key" for key in whole if key not in KEYS]
    problems += [f"{key}: is missing" for key in KEYS if key not in whole]
    problems += [
        f"{key}: must be {wanted}"
        for key, (holds, wanted) in KEYS.items()
        if key in whole and not _holds(holds, whole[key])
    ]
    decoding = whole["decoding"]
    if isinstance(decoding, dict):
        problems += [
            f"decoding.{key}: there is no such key" for key in decoding if key not in DECODING
        ]
        problems += [
            f"decoding.{key}: must be {wanted}"
            for key, (holds, wanted) in DECODING.items()
            if key in decoding and not _holds(holds, decoding[key])
        ]
    if problems:
        raise Invalid(
            "bad-profile",
            f"The profile cannot be used: {'; '.join(problems)}.",
            problems=problems,
        )
    # The order of checks says nothing, that of stop texts neither: one order, so that one thing has
    # one digest.
    parts = {**whole, "policy_checks": sorted(whole["policy_checks"]), "decoding": dict(decoding)}
    if "stop" in decoding:
        parts["decoding"]["stop"] = sorted(set(decoding["stop"]))
    return Profile(parts)


def check_prompt(digest: str, data: bytes) -> str:
    """A system prompt's bytes as the text a model would read; Invalid (`bad-prompt`) when they are
    none.
    """
    if len(data) > MAX_PROMPT:
        raise Invalid(
            "bad-prompt",
            f"The system prompt sha256:{digest} has more than {MAX_PROMPT:,} bytes.",
            "Shorten it, or give the model documents by a retrieval index.",
        )
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not text.strip() or not all(one.isprintable() or one.isspace() for one in text):
        raise Invalid(
            "bad-prompt",
            f"The system prompt sha256:{digest} is empty, no UTF-8 text, or holds control "
            "characters.",
            "Save it as plain UTF-8 text.",
        )
    return text


@dataclass(frozen=True, slots=True)
class Difference:
    """One part in which two profiles differ; None is a part that one of them does not have."""

    part: str
    before: Any
    after: Any


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Every part in which two documents differ, those of decoding one by one; empty for the same
    profile alone.
    """
    one, other = _flat(before), _flat(after)
    return [
        Difference(part, one.get(part), other.get(part))
        for part in dict.fromkeys([*one, *other])
        if one.get(part) != other.get(part)
    ]


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    parts = {
        key: document[key]
        for key in ("version", "base", *KEYS)
        if key in document and key != "decoding"
    }
    return parts | {
        f"decoding.{key}": value for key, value in sorted(document.get("decoding", {}).items())
    }


def _holds(check: Callable[[Any], bool], value: Any) -> bool:
    # A list or table where a word is wanted cannot be looked up in a set; it is wrong all the same.
    try:
        return check(value)
    except TypeError:
        return False

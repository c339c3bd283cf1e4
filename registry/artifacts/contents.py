"""Checks the texts of a bundle by their content, whatever their names are.

A file that is not safetensors must be a text of its own kind: JSON in the form that its readers
expect, a token table, or prose in which nothing is hidden and nothing is active.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Wrong = Callable[[str, str, str, str], None]
"""Records a defect: `wrong(where, rule, detail, fix)`."""

HIDDEN = re.compile(
    "[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]"
)
"""Characters that a reader cannot see.

White space and form feeds (the GPL has some) are text. Other control characters, changes of the
direction of writing, and the invisible tag characters, which can carry a text for machines, are
not; only the emoji of a flag may contain tag characters.
"""
HIDDEN_RANGES = (
    range(0xA0),
    range(0x202A, 0x206A),
    (0xFEFF,),
    range(0xFFF9, 0xFFFC),
    range(0xE0000, 0xE0080),
)
HIDDEN_CHARACTERS = frozenset(
    letter for codes in HIDDEN_RANGES for letter in map(chr, codes) if HIDDEN.search(letter)
)
"""The characters of HIDDEN: testing a text for a set is faster than searching a pattern."""
CONTROLS = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f]")
MARKUP = re.compile(r"\s*(?:<!doctype|<html|<svg|<\?xml|<\?php|<script|<%|\{\\rtf)", re.IGNORECASE)
CODE = re.compile(
    r"(?:from\s+[\w.]+\s+import\s.*|import\s+[\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+)*"
    r"|import\s.*\sfrom\s+['\"].*"
    r"|(?:async\s+)?def\s+\w+\s*\(.*|class\s+\w+\s*(?:\(.*\))?\s*:.*"
    r"|@\w[\w.]*(?:\(.*\))?|__import__\s*\(.*"
    r"|(?:exec|eval|print|require|system)\s*\(.*|#include\s*[<\"].*"
    r"|package\s+[\w.]+;?|using\s+[\w.]+;"
    r"|(?:export\s+)?(?:async\s+)?function\s+\w*\s*\(.*"
    r"|(?:const|let|var)\s+\w+\s*=.*|fn\s+\w+\s*\(.*|use\s+[\w:]+;)"
)
FENCED = re.compile(
    r"^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1|\Z)|(?<!`)(`{1,8})(?!`)[^`\n]{1,300}\2(?!`)",
    re.MULTILINE | re.DOTALL,
)
ACTIVE = re.compile(
    r"<\s{0,3}(?:script|iframe|style|svg|applet)\b"
    r"|<\s{0,3}(?:object|embed|base|form|meta|link)\s{1,9}[\w-]{1,30}\s{0,9}="
    r"|<[a-z][^<>\n]{0,500}\son[a-z]{3,20}\s{0,9}="
    r"|(?:\]\(|(?:href|src)\s{0,9}=\s{0,9}[\"']?|<)\s{0,9}(?:javascript|vbscript)\s{0,9}:"
    r"|\bdata:(?:text/html|image/svg|application/)",
    re.IGNORECASE,
)
MAX_TAGS = 20_000
FRONT = re.compile(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.MULTILINE | re.DOTALL)
YAML_ACT = re.compile(
    r"(?:^[ \t]*|[-?:][ \t]+|[\[{,][ \t]*)"
    r"((?:!(?:<[^>\n]{1,200}>|!?[A-Za-z][\w./:!-]*)|&(?!\w{1,30};)[^\s,\[\]{}]+|\*[\w.-]+)"
    r"(?=[\s,\]}]|\Z)|<<[ \t]*:|%TAG[ \t])",
    re.MULTILINE,
)
"""A tag, an anchor, an alias or a merge key where a value or a key of YAML begins.

An entity of HTML is not an anchor.
"""

REMOTE = frozenset(
    {
        "auto_map",
        "trust_remote_code",
        "custom_pipelines",
        "custom_generate",
        "kernel_config",
        "use_kernels",
        "use_pretrained_backbone",
    }
)
"""Keys by which transformers 5 fetches or imports code or other weights.

See dynamic_module_utils, hub_kernels and backbones.
"""
IMPLEMENTATIONS = frozenset(
    f"{lead}{part}_implementation{tail}"
    for lead in ("", "_")
    for part in ("attn", "experts")
    for tail in ("", "_internal")
)
"""Keys that name built-in code, or a repository from which a kernel is fetched.

See hub_kernels.is_kernel.
"""
TEKKEN = frozenset(
    {
        "config",
        "vocab",
        "special_tokens",
        "type",
        "version",
        "image",
        "audio",
        "multimodal",
        "model_settings_builder",
    }
)
"""The parts of a tekken.json (mistral_common/tokens/tokenizers/tekken.py)."""
TOKENIZERS = frozenset(
    {
        "version",
        "truncation",
        "padding",
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "model",
    }
)
"""The parts of a tokenizer.json (tokenizers 0.22, tokenizer/serialization.rs)."""
CLASSES = frozenset(
    {"tokenizer_class", "processor_class", "image_processor_type", "feature_extractor_type"}
)
CLASS = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def check_prose(text: str, wrong: Wrong) -> None:
    """Check a README, licence or notice: readable, nothing hidden, nothing that would run."""
    check_plain(text, wrong)
    if MARKUP.match(text):
        wrong(
            "",
            "code-as-text",
            "it is a page or a program, not a text",
            "Write it as Markdown or plain text.",
        )
        return
    front = FRONT.match(text)
    if front and (match := YAML_ACT.search(front[1])):
        wrong(
            "front matter",
            "active-content",
            f"{match[1][:60]!r} is a tag, an anchor or an alias of YAML",
            "Write plain values: a reader would build objects, or repeat a text a million times.",
        )
    if front:
        _check_keys(front[1], wrong)
    body = text[front.end() :] if front else text
    first = next(
        (line.strip() for line in body.splitlines() if line.strip() and not line.startswith("# ")),
        "",
    )
    if CODE.fullmatch(first[:1000]):
        wrong(
            "",
            "code-as-text",
            f"it begins like a program: {first[:60]!r}",
            "Begin with what it is for, and put code between ``` lines.",
        )
    if body.count("<") > MAX_TAGS:
        wrong("", "active-content", f"it has more than {MAX_TAGS} tags", "Write it as Markdown.")
    elif match := ACTIVE.search(FENCED.sub(" ", body)):
        wrong(
            "",
            "active-content",
            f"{match[0][:60]!r} would be active where the text is shown as a page",
            "Remove it, or put an example between ``` lines.",
        )


def _check_keys(front: str, wrong: Wrong) -> None:
    """Check that no key of the front matter is repeated.

    Some readers use the first of two equal keys and others the last, for instance of two licences.
    """
    lines: dict[str, int] = {}
    for number, line in enumerate(front.split("\n"), 2):
        key, colon, value = line.rstrip("\r").partition(":")
        if not colon or key[:1] in ("", " ", "\t", "#", "-") or value[:1] not in ("", " ", "\t"):
            continue
        name = key.strip().strip("\"'")
        if name in lines:
            wrong(
                f"line {number}",
                "duplicate-key",
                f"the key {name[:60]!r} is on line {lines[name]} already",
                "Keep one of them.",
            )
            return
        lines[name] = number


def check_plain(text: str, wrong: Wrong) -> None:
    """Check that a text has no character that a reader cannot see but a machine obeys."""
    if HIDDEN_CHARACTERS.isdisjoint(text):
        return
    if match := HIDDEN.search(text):
        wrong(
            f"character {match.start()}",
            "hidden-character",
            f"it contains U+{ord(match[0]):04X}, which is invisible",
            "Remove it: readers must see everything.",
        )


MERGE = re.compile(r"(?:#version[^\n]{0,100}|[^ \n]{1,1024} [^ \n]{1,1024}|)\r?\n")
MERGES = re.compile(f"(?:{MERGE.pattern})*")
MAX_LINES = 600_000
MAX_LINE = 1024


def check_tokens(path: str, texts: Iterator[str], wrong: Wrong) -> None:
    """Check merges.txt or vocab.txt.

    A line of merges.txt has two pieces with a blank between them, a line of vocab.txt one piece of
    at most 1,024 characters. `texts` are blocks of whole lines. Each is checked as a whole, and
    line by line only where something is wrong.
    """
    merges, before = path == "merges.txt", 0
    for text in texts:
        lines = text.count("\n")
        if (
            before + lines > MAX_LINES
            or CONTROLS.search(text)
            or not (
                MERGES.fullmatch(text if text.endswith("\n") else text + "\n")
                if merges
                else max(map(len, text.split("\n"))) <= MAX_LINE
            )
        ):
            number = next(
                (n for n, line in enumerate(text.split("\n"), 1) if not _is_entry(line, merges)),
                MAX_LINES - before + 1,
            )
            expected = (
                "two pieces with one blank between them"
                if merges
                else f"one piece of at most {MAX_LINE} characters"
            )
            wrong(
                f"line {before + number}",
                "token-table",
                f"each of at most {MAX_LINES} lines has {expected}",
                "Save the tokenizer again with transformers.",
            )
            return
        before += lines


def _is_entry(line: str, merges: bool) -> bool:
    if CONTROLS.search(line):
        return False
    return MERGE.fullmatch(line + "\n") is not None if merges else len(line) <= MAX_LINE


def check_document(path: str, document: Any, wrong: Wrong, *, deep: bool = True) -> None:
    """Check a JSON file of at most a few megabytes.

    It must be an object without keys by which a loader fetches or imports code. Unless `deep`, only
    its outermost keys are checked.
    """
    if not isinstance(document, dict):
        wrong("", "json-object", "it is not a JSON object", "Save the model again.")
        return
    for where, key, value in (
        _members(document) if deep else ((key, key, value) for key, value in document.items())
    ):
        if key in REMOTE and value:
            wrong(
                where,
                "remote-code",
                f"{key} makes a loader run code that comes with the model",
                f"Remove {key} (import --without-code does); only architectures built into "
                "transformers are accepted.",
            )
        elif key in IMPLEMENTATIONS and _names_repository(value):
            wrong(
                where,
                "remote-code",
                f"{key} {str(value)[:60]!r} is fetched from a repository and run",
                "Name an implementation built into transformers, or remove the key.",
            )
        elif (
            key in CLASSES
            and value is not None
            and not (isinstance(value, str) and CLASS.fullmatch(value))
        ):
            wrong(
                where,
                "config-value",
                f"{key} is {str(value)[:60]!r}, which is not the name of a class of transformers",
                "Save the model again with transformers.",
            )
    if path == "added_tokens.json" and not all(type(number) is int for number in document.values()):
        wrong(
            "",
            "token-table",
            "each token has a whole number",
            "Save the tokenizer again with transformers.",
        )


def _names_repository(value: Any) -> bool:
    names = value.values() if isinstance(value, dict) else [value]
    return any("/" in name for name in names if isinstance(name, str))


def _members(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every key at any depth, as (path, key, value), without recursion."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        lead, node = waiting.pop()
        if type(node) is dict:
            for key, value in node.items():
                yield lead + key, key, value
                if type(value) in (dict, list):
                    waiting.append((f"{lead}{key[:60]}."[-300:], value))
        else:
            waiting.extend((lead, item) for item in node if type(item) in (dict, list))


def check_outline(path: str, kinds: dict[str, str], wrong: Wrong) -> None:
    """Check a large JSON file that was read in pieces, by the kinds of its outermost values."""
    if path == "tokenizer.json":
        for key in sorted(set(kinds) - TOKENIZERS):
            wrong(
                key,
                "json-object",
                "a tokenizer has no such part",
                "Save the tokenizer again with transformers.",
            )
        if kinds.get("model", "object") != "object":
            wrong(
                "model",
                "json-object",
                "a tokenizer's model is an object",
                "Save the tokenizer again with transformers.",
            )
    if path == "tekken.json" and (
        not set(kinds) <= TEKKEN or kinds.get("vocab") != "list" or kinds.get("config") != "object"
    ):
        wrong(
            "",
            "json-object",
            "it is not Mistral's table, which has a config, a vocab and their parts",
            "Fetch the file again, or leave it out where tokenizer.json has the same content.",
        )
    if path == "vocab.json" and not set(kinds.values()) <= {"number"}:
        first = next(key for key, kind in kinds.items() if kind != "number")
        wrong(
            first,
            "token-table",
            "each token has a whole number",
            "Save the tokenizer again with transformers.",
        )

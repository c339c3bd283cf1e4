"""Chat templates: which templates of a bundle count, and what is wrong with them.

A chat template is a program. Engines run it on every request, and a single one was enough to run
code on a server that did not confine it (CVE-2026-5760). Confinement is not enough: a template that
adds a sentence to some prompts breaks no rule of a sandbox. An adapter may therefore bring none
unless a policy allows it, and then people see what it changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from registry.documents import canonical
from registry.documents.canonical import digest, sha256_hex
from registry.errors import Defect

FILE = "chat_template.jinja"
SETTINGS = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
FILES = (FILE, SETTINGS, SPECIAL)
"""The files of the templates and of the special tokens that they may name."""
MAX_TEMPLATE = 64 << 10
"""Characters of one template; the longest of about eighty in use has 20,000."""
MAX_TEMPLATES = 8
"""Templates of one bundle."""
HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
"""Control characters except tab, and invisible or direction-changing characters.

See Boucher, Trojan Source, arXiv 2111.00169.
"""
TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""The special tokens that transformers passes to a template with the conversation, by name."""


@dataclass(frozen=True, slots=True)
class Templates:
    """The chat templates of one bundle by name, as transformers chooses them.

    `source` is the file that they come from.
    """

    source: str
    texts: dict[str, str]

    @property
    def digest(self) -> str:
        """One digest over all templates by name; it does not depend on their source."""
        return digest(
            {
                name: sha256_hex(text.encode("utf-8", "surrogatepass"))
                for name, text in self.texts.items()
            }
        )


@dataclass(frozen=True, slots=True)
class Offence:
    """One thing wrong with a template; `runs_code`: a known way to run code without confinement."""

    template: str
    line: int
    rule: str
    detail: str
    runs_code: bool


class Look(Protocol):
    """Examines templates where they can do no harm.

    With `tokens` it also runs them on the golden conversations.
    """

    def __call__(
        self, texts: Mapping[str, str], tokens: Mapping[str, str] | None
    ) -> list[Offence]: ...


@dataclass(frozen=True, slots=True)
class Judge:
    """What examines templates, and the policies in force that let an adapter bring its own."""

    look: Look
    allowed_by: tuple[str, ...] = ()


def templates_of(documents: Mapping[str, Any]) -> Templates | None:
    """The templates among a bundle's parsed files; None when there are none.

    transformers prefers chat_template.jinja to the key of tokenizer_config.json, which is a text or
    a list of named texts.
    """
    text = documents.get(FILE)
    if isinstance(text, str):
        return Templates(FILE, {"default": text})
    inside = inner(documents)
    return None if inside is None else Templates(SETTINGS, inside)


def inner(documents: Mapping[str, Any]) -> dict[str, str] | None:
    """The templates in tokenizer_config.json by name; None for none, or for an unknown form."""
    settings = documents.get(SETTINGS)
    value = settings.get("chat_template") if isinstance(settings, dict) else None
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list) and value and all(map(_is_named, value)):
        named = {entry["name"]: entry["template"] for entry in value}
        return named if len(named) == len(value) else None
    return None


def _is_named(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("template"), str)
    )


def tokens_of(documents: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens that a template may name.

    tokenizer_config.json takes precedence over special_tokens_map.json.
    """
    tokens: dict[str, str] = {}
    for path in (SPECIAL, SETTINGS):
        document = documents.get(path)
        if not isinstance(document, dict):
            continue
        for name in TOKENS:
            value = document.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                tokens[name] = value
    return tokens


def check(
    kind: str,
    documents: Mapping[str, Any],
    base: Templates | None,
    base_tokens: Mapping[str, str],
    judge: Judge | None,
) -> tuple[dict[str, Any], list[Defect]]:
    """The facts of a bundle's templates, and their defects.

    `base` are the templates of the base that an adapter is bound to. For a base or a checkpoint
    only what could run code is a defect; everything else becomes the fact `concerns`. Without a
    `judge` no template is examined, and only their form and presence are checked.
    """
    templates = templates_of(documents)
    settings = documents.get(SETTINGS)
    if (
        isinstance(settings, dict)
        and settings.get("chat_template") is not None
        and inner(documents) is None
    ):
        return {}, [
            Defect(
                SETTINGS,
                "chat_template",
                "template-form",
                "it is neither a text nor a list of named texts",
                "Save the tokenizer again with transformers.",
            )
        ]
    if templates is None:
        return {}, []
    if defects := [
        Defect(
            templates.source,
            "",
            "template-form",
            "it contains NUL or half of a surrogate pair, which no text may contain",
            "Remove the character, or write it completely.",
        )
        for text in (*templates.texts, *templates.texts.values())
        if not _is_text(text)
    ]:
        return {}, defects[:1]
    defects = _sizes(templates)
    own = kind == "adapter" and (base is None or base.texts != templates.texts)
    if kind == "adapter":
        both = inner(documents)
        if templates.source == FILE and both is not None and both != templates.texts:
            defects.append(
                Defect(
                    SETTINGS,
                    "chat_template",
                    "template-twice",
                    f"it differs from {FILE}, and different programs use one or the other",
                    "Keep one of them.",
                )
            )
        if own and base is not None and not (judge and judge.allowed_by):
            defects.append(_refused(templates))
    facts: dict[str, Any] = {
        "source": templates.source,
        "digest": templates.digest,
        "templates": {
            name: f"sha256:{sha256_hex(text.encode('utf-8', 'surrogatepass'))}"
            for name, text in sorted(templates.texts.items())
        },
    }
    if kind == "adapter":
        facts["own"] = own
    if judge is not None and not defects and (own or kind != "adapter"):
        offences = [*_hidden(templates), *judge.look(templates.texts, base_tokens if own else None)]
        refused = [offence for offence in offences if own or offence.runs_code]
        defects += [
            Defect(
                templates.source,
                _where(templates, offence),
                offence.rule,
                offence.detail,
                "Remove it: engines run a template on every request."
                if offence.runs_code
                else "Write the template without it.",
            )
            for offence in refused
        ]
        if concerns := [
            f"{_where(templates, offence)}: {offence.detail}"
            for offence in offences
            if offence not in refused
        ]:
            facts["concerns"] = concerns
    return {"chat_template": facts}, defects


def _is_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _hidden(templates: Templates) -> list[Offence]:
    """Invisible characters, and those that make a line look different from what it does.

    They would deceive the people who decide.
    """
    return [
        Offence(name, number, "hidden-character", f"U+{ord(letter):04X} is invisible", False)
        for name, text in templates.texts.items()
        for number, line in enumerate(text.split("\n"), 1)
        for letter in sorted(set(HIDDEN.findall(line)))
    ]


def _where(templates: Templates, offence: Offence) -> str:
    line = f"line {offence.line}" if offence.line else ""
    return line if set(templates.texts) == {"default"} else f"{offence.template} {line}".strip()


def _sizes(templates: Templates) -> list[Defect]:
    defects = []
    if len(templates.texts) > MAX_TEMPLATES:
        defects.append(
            Defect(
                templates.source,
                "chat_template",
                "too-many-templates",
                f"{len(templates.texts)} templates, but at most {MAX_TEMPLATES} are accepted",
                "Keep only those that are used.",
            )
        )
    defects += [
        Defect(
            templates.source,
            name[:80],
            "template-too-long",
            f"{len(text)} characters, but at most {MAX_TEMPLATE} are accepted",
            "Shorten it.",
        )
        for name, text in templates.texts.items()
        if len(text) > MAX_TEMPLATE
    ]
    return defects


def _refused(templates: Templates) -> Defect:
    return Defect(
        templates.source,
        "" if templates.source == FILE else "chat_template",
        "chat-template-refused",
        "it is not the base's chat template, and no policy in force lets an adapter bring its own",
        "Remove it, so that the base's is used, or publish a policy with `chat_templates: allow` "
        "first.",
    )


def own_of(facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The facts about a version's own chat template; None when it has none."""
    template = facts.get("chat_template")
    return template if isinstance(template, dict) and template.get("own") else None


def named(documents: Mapping[str, Any]) -> str | None:
    """The templates as they enter the base root: the text, or the whole list as canonical JSON."""
    template = documents.get(FILE)
    settings = documents.get(SETTINGS)
    if template is None and isinstance(settings, dict):
        template = settings.get("chat_template")
    if template is not None and not isinstance(template, str):
        return canonical.encode(template).decode()
    return template

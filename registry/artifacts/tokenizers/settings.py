"""What tokenizer_config.json and special_tokens_map.json add to a tokenizer.json.

transformers 4 and 5 write these files with different keys for the same tokenizer. Keys of a call
(lengths, padding, truncation) and of the release that wrote the file change no tokenizer. Every
other key counts, also those that are not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from registry.artifacts.tokenizers.chat_templates import TOKENS
from registry.artifacts.tokenizers.meanings import (
    EXTRA,
    GENERIC,
    Meaning,
    content,
    extra_texts,
    family,
    takes_file,
)

NAMED = tuple(name for name in TOKENS if name != "pad_token")
"""Special tokens with a meaning. Padding is masked: any token that the base has may fill a row."""
INERT = frozenset(
    {
        "chat_template",  # judged apart
        "name_or_path",
        "is_local",
        "local_files_only",
        "special_tokens_map_file",
        "transformers_version",
        "processor_class",
        "device_map",
        "model_input_names",
        "use_default_system_prompt",
        "pad_token",
        "tokenizer_class",
        "added_tokens_decoder",
        *NAMED,
        *EXTRA,
    }
)
"""Keys of where and how a file was written, and those compared in a form of their own."""
RUN_TIME = frozenset(
    {
        "model_max_length",
        "max_length",
        "max_len",
        "padding",
        "padding_side",
        "pad_to_multiple_of",
        "pad_token_type_id",
        "stride",
        "truncation",
        "truncation_side",
        "truncation_strategy",
    }
)
"""Settings of a call."""
DEFAULTS: Mapping[str, Any] = {
    "backend": "tokenizers",
    "errors": "replace",
    "legacy": False,
    "sp_model_kwargs": {},
    "spaces_between_special_tokens": False,
    "split_special_tokens": False,
}
"""What transformers 5 does where a key is not written; null says the same."""
FILES = ("tokenizer_file", "vocab_file", "merges_file")
"""Keys of other files to read instead, which transformers 5 drops when it saves."""
BERT = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
"""Keys that set an option of BertNormalizer; without effect where they say the same."""
CLASSES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "gpt2 gpt_neo gptj opt codegen phi": (
        "GPT2 CodeGen",
        dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
    ),
    "gpt_neox": (
        "GPTNeoX",
        dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
    ),
    "qwen2 qwen2_moe qwen2_vl qwen2_5_vl qwen3 qwen3_moe qwen3_5": (
        "Qwen2 Qwen3_5",
        dict.fromkeys(("eos_token", "unk_token"), "<|endoftext|>"),
    ),
    "llama mistral mixtral": (
        "Llama CodeLlama",
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "gemma gemma2 gemma3 gemma3_text": (
        "Gemma",
        {
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
        },
    ),
    "t5 mt5 umt5": ("T5", {"eos_token": "</s>", "unk_token": "<unk>"}),
    "bert distilbert electra": (
        "Bert DistilBert Electra",
        {
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
            "unk_token": "[UNK]",
        },
    ),
    "roberta xlm-roberta": (
        "Roberta XLMRoberta",
        {
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "mask_token": "<mask>",
            "unk_token": "<unk>",
        },
    ),
}
"""Types of model: the tokenizer classes that transformers 5.23 takes for them, without
`Tokenizer`, and the special tokens that such a class has where the files name none."""


def differences(
    own: Any, base: Any, meaning: Meaning, kind: str | None
) -> Iterator[tuple[str, Any, Any]]:
    """Each key by which an adapter's tokenizer_config.json makes another tokenizer than its base's.

    `meaning` is the base's tokenizer as it is loaded and `kind` its model_type. Yields the key, the
    adapter's value and the base's.
    """
    own, base = own if isinstance(own, dict) else {}, base if isinstance(base, dict) else {}
    usual = _usual(own, base, kind)
    if usual is None:
        yield "tokenizer_class", own.get("tokenizer_class"), base.get("tokenizer_class")
        usual = {}
    of_own = {} if takes_file(own) else usual
    for name in NAMED:
        stated = content(own, name) if name in own else of_own.get(name)
        expected = content(base, name) if name in base else usual.get(name)
        if stated != expected or (stated is None and own.get(name) is not None):
            yield name, own.get(name), base.get(name)
    yield from _extra(own, base, meaning)
    for key in sorted({*own, *base} - INERT - RUN_TIME):
        values = own.get(key), base.get(key)
        if key == "clean_up_tokenization_spaces" and key not in base:
            continue  # the release decides, and writes what it decided
        if key in FILES and values[0] is None:
            continue
        plain = [None if _is_idle(key, value, meaning) else value for value in values]
        if plain[0] != plain[1] or type(plain[0]) is not type(plain[1]):
            yield key, *values


def _usual(own: Any, base: Any, kind: str | None) -> Mapping[str, str] | None:
    """The special tokens of the class that both name; None when they name different classes."""
    stated, expected = (family(settings.get("tokenizer_class")) for settings in (own, base))
    names, of_type = next(
        (row for kinds, row in CLASSES.items() if kind in kinds.split()), ("", {})
    )
    usual = next((tokens for known, tokens in CLASSES.values() if expected in known.split()), {})
    if expected in (None, *GENERIC) and stated in (None, *GENERIC, *names.split()):
        # transformers 5 takes the class of the model's type here, and names it when it saves.
        return of_type if expected is None else {}
    return usual if stated in (None, expected, *GENERIC) else None


def _extra(own: Any, base: Any, meaning: Meaning) -> Iterator[tuple[str, Any, Any]]:
    """Further special tokens that the base does not have as special ones."""
    known = meaning.special() | set(extra_texts(base))
    for key in EXTRA:
        if strange := [text for text in extra_texts({key: own.get(key)}) if text not in known]:
            yield key, strange[:1], base.get(key)


def _is_idle(key: str, value: Any, meaning: Meaning) -> bool:
    """Whether a key says only what the tokenizer does anyway."""
    if value is None or (key in DEFAULTS and DEFAULTS[key] == value):
        return True
    if key in ("add_bos_token", "add_eos_token"):
        return bool(meaning.steps)  # then it is part of the loaded meaning
    if key == "add_prefix_space":
        return value is False or value is meaning.steps.get("puts_blank")
    if key in BERT:
        option, default = BERT[key]
        normalizer = meaning.steps.get("normalizer")
        if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
            return bool(normalizer.get(option, default) is value)
    if key == "extra_ids":
        return bool(meaning.special())
    return False

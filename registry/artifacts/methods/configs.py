"""The allowed content of adapter_config.json: a check, a default and a stored form for every key.

PEFT's own configuration classes accept unknown keys, any rank, names that are imported, and regular
expressions that hang a server ((a+)+b was measured to run without end). Here an unknown key refuses
the adapter. Nothing of the file runs as a pattern, neither here nor, once the file is rewritten, in
PEFT: names contain only letters, digits, underscores and dots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from registry.fields import MISSING, Field, choice, flag, integer, list_of, nullable, number, text

FILE = "adapter_config.json"
MAX_RANK = 512
MAX_TARGETS = 4096
MAX_SAVED = 64
MAX_LAYER = 9999
MAX_NAME = 512
MODULE = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
CLASSES = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
"""Tasks with a head of labels; the adapter brings all of it."""
LIBRARY = re.compile(r"transformers(?:\.[a-z0-9_]+)+")

Values = Mapping[str, Any]
"""A configuration after reading: every stored key of its method, with defaults and sorted lists."""


@dataclass(frozen=True, slots=True)
class Key(Field):
    """One key and its stored form.

    A key that is not `stored` says how training began or with what it was saved; loading does not
    need it. A `sparse` key is stored only where it is not the default.
    """

    stored: bool = True
    write: Callable[[Any], Any] = lambda value: value
    sparse: bool = False


def key(
    field: Field,
    default: Any = None,
    *,
    write: Callable[[Any], Any] = lambda value: value,
    sparse: bool = False,
) -> Key:
    """A key that is stored; the default `MISSING` makes it required."""
    return Key(field.check, field.expected, default is MISSING, default, write=write, sparse=sparse)


def checked_only(field: Field) -> Key:
    """A key that is checked and not stored."""
    return Key(field.check, field.expected, required=False, stored=False)


def is_name(value: Any) -> bool:
    """Whether a value is the full name of a module or the ending of one."""
    return isinstance(value, str) and len(value) <= MAX_NAME and MODULE.fullmatch(value) is not None


def is_names(value: Any) -> bool:
    """Whether a value is a list of names of modules."""
    return isinstance(value, list) and 0 < len(value) <= MAX_TARGETS and all(map(is_name, value))


def is_optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A check for null, an empty list, or what `check` accepts."""
    return lambda value: value is None or value == [] or check(value)


def is_components(value: Any) -> bool:
    """Whether a value is a name without dots, or a list of such names."""
    names = [value] if isinstance(value, str) else value
    return is_names(names) and not any("." in name for name in names)


def is_tokens(value: Any) -> bool:
    """Whether a value is a list of different token ids, or an object from one embedding to it."""
    if isinstance(value, dict):
        return len(value) == 1 and all(map(is_name, value)) and all(map(is_tokens, value.values()))
    return list_of(integer(0, 2**24), 1, 65536, different=True).check(value)


def is_eva(value: Any) -> bool:
    """Whether a value is EVA's settings: a few numbers and flags, none of which is loaded."""
    return value is None or (
        isinstance(value, dict)
        and len(value) <= 16
        and all(type(item) in (int, float, bool, type(None)) for item in value.values())
    )


def is_import(value: Any) -> bool:
    """Whether a value names a class of transformers and its module.

    PEFT records that where no task is set; Unsloth adds a mark.
    """
    return (
        isinstance(value, dict)
        and value.keys() <= {"base_model_class", "parent_library", "unsloth_fixed"}
        and isinstance(value.get("parent_library"), str)
        and LIBRARY.fullmatch(value["parent_library"]) is not None
        and is_name(value.get("base_model_class"))
        and isinstance(value.get("unsloth_fixed", True), bool)
    )


def is_layers(value: Any) -> bool:
    """Whether a value is null, the number of a layer, or a list of such numbers."""
    index = integer(0, MAX_LAYER).check
    return value is None or index(value) or (isinstance(value, list) and all(map(index, value)))


ANYWHERE = ".*\\."
"""The prefix that PEFT 0.21 writes when it turns experts' modules into parameters.

With it a name matches the same modules.
"""


def is_pattern(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A check for null, or an object from names of modules to what `check` accepts."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, dict) or len(value) > MAX_TARGETS:
            return value is None
        names = [name.removeprefix(ANYWHERE) for name in value]
        return (
            len(set(names)) == len(names)
            and all(map(is_name, names))
            and all(map(check, value.values()))
        )

    return accepts


def _sorted(value: Iterable[Any] | None) -> list[Any] | None:
    return sorted(set(value)) if value else None


def _layers(value: Any) -> list[int] | None:
    # PEFT reads an empty list as null, and a number as a list of that number.
    return [value] if isinstance(value, int) else _sorted(value)


def _pattern(value: Any) -> dict[str, Any]:
    return dict(sorted((name.removeprefix(ANYWHERE), item) for name, item in (value or {}).items()))


def _null(value: Any) -> None:
    return None


NAME = nullable(text(0, MAX_NAME))
COMMON: dict[str, Key] = {
    "task_type": key(choice(None, *TASKS)),
    "inference_mode": key(flag(), True, write=lambda _: True),
    # Replaced by the base that the adapter is bound to here. The value in the file is only a hint
    # of what it was trained on.
    "base_model_name_or_path": key(
        NAME.because("the binding is the base root, not this name"), write=_null
    ),
    "revision": key(NAME, write=_null),
    "peft_version": checked_only(NAME),
}
ANY_TASK = key(choice(None, *TASKS, *CLASSES))
_LIST = "a list of module names; a text would run as a regular expression"
TARGETS = key(Field(is_names, _LIST), MISSING, write=_sorted)
EXCLUDED = key(Field(is_optional(is_names), f"null or {_LIST}"), write=_sorted, sparse=True)
LAYERS = key(Field(is_layers, "null, a layer's number, or a list of them"), write=_layers)
SAVED = key(
    Field(
        is_optional(lambda value: is_names(value) and len(value) <= MAX_SAVED),
        f"null or a list of at most {MAX_SAVED} exact module names; anything else would run as "
        "regular expressions",
    ),
    write=_sorted,
)
STARTS = (True, False, "gaussian", "orthogonal", "eva", "mica")
"""Values of init_lora_weights that do not change the base's weights."""
CONVERTED = ("pissa", "olora", "corda", "lora_ga")
"""Values of init_lora_weights that move a part of the base's weights into the adapter.

PEFT can save the result as plain LoRA.
"""

RANK = integer(1, MAX_RANK)
# PEFT writes a fraction when it converts a rank-stabilised adapter: alpha times the root of 2.
ALPHA = number(0.001, 65536)
FRACTION = number(0, 1, exclusive=True)
TOKEN = integer(0, 2**24)
LORA: dict[str, Key] = {
    **COMMON,
    "task_type": ANY_TASK,
    "r": key(RANK, MISSING),
    "lora_alpha": key(ALPHA, MISSING),
    "lora_dropout": key(FRACTION, 0.0),
    # Empty only beside target_parameters.
    "target_modules": key(
        Field(is_optional(is_names), _LIST), MISSING, write=lambda value: _sorted(value) or []
    ),
    "target_parameters": key(
        Field(is_optional(is_names), "null or a list of names of parameters"),
        write=_sorted,
        sparse=True,
    ),
    "exclude_modules": EXCLUDED,
    "layers_to_transform": LAYERS,
    "layers_pattern": key(
        Field(
            lambda value: value in (None, "", []) or is_components(value),
            "null or names without dots, such as layers",
        ),
        write=lambda value: (
            list(dict.fromkeys([value] if isinstance(value, str) else value)) if value else None
        ),
        sparse=True,
    ),
    "rank_pattern": key(
        Field(
            is_pattern(RANK.check),
            f"an object from exact module names (no patterns) to ranks up to {MAX_RANK}",
        ),
        write=_pattern,
    ),
    "alpha_pattern": key(
        Field(
            is_pattern(ALPHA.check),
            "an object from exact module names (no patterns) to numbers up to 65536",
        ),
        write=_pattern,
    ),
    "modules_to_save": SAVED,
    "bias": key(choice("none", "all", "lora_only"), "none"),
    "lora_bias": key(flag(), False, sparse=True),
    "trainable_token_indices": key(
        Field(
            is_optional(is_tokens),
            "null, a list of token ids, or an object from one embedding's name to such a list",
        ),
        write=lambda value: value or None,
        sparse=True,
    ),
    "alora_invocation_tokens": key(
        nullable(list_of(TOKEN, 0, 4096)), write=lambda value: value or None, sparse=True
    ),
    "use_dora": key(flag(), False),
    "use_rslora": key(flag(), False),
    "fan_in_fan_out": key(flag(), False),
    # The trained weights contain the start of training; PEFT would only draw random numbers and
    # overwrite them.
    "init_lora_weights": key(choice(*STARTS), True, write=lambda _: True),
    "eva_config": checked_only(Field(is_eva, "null, or an object of numbers, true and false")),
    "runtime_config": checked_only(
        Field(
            lambda value: (
                value is None
                or (isinstance(value, dict) and value.keys() <= {"ephemeral_gpu_offload"})
            ),
            "null or an object with ephemeral_gpu_offload",
        )
    ),
    # PEFT repeats the adapter of a tied embedding under the head; `untied` names the head instead.
    "ensure_weight_tying": checked_only(flag()),
    "qalora_group_size": checked_only(integer(1, 65536)),
    "megatron_core": checked_only(
        choice(None, "megatron.core").because("PEFT imports this module")
    ),
}
IMPORTS = "it makes the loader import a class by name"
UNCHECKED = "its tensors cannot be checked yet"
LORA_EMPTY: dict[str, str] = {
    "auto_mapping": IMPORTS,
    "megatron_config": IMPORTS,
    "loftq_config": "it changes the base's weights",
    "corda_config": "it names files that are unpickled",
    "lora_ga_config": "it names files that are unpickled",
    "layer_replication": "it builds a model other than the base",
    "arrow_config": "it routes between several adapters",
    "kasa_config": UNCHECKED,
    "monteclora_config": UNCHECKED,
    "velora_config": UNCHECKED,
    "use_qalora": "its tensors have other shapes",
    "use_bdlora": "its tensors have other shapes",
    # From PEFT before 0.3.
    "enable_lora": "its tensors have other shapes",
    "merge_weights": "it was merged into the base",
}
"""Keys that PEFT writes and that must stay at their empty default, each with the reason."""

_STEP = integer(0, 2**53 - 1)
_STEPS = integer(1, 2**53 - 1)
_PLAIN = ("target_parameters", "trainable_token_indices", "alora_invocation_tokens", "lora_bias")
ADALORA_EMPTY = LORA_EMPTY | dict.fromkeys(_PLAIN, "PEFT's AdaLoRA does not have it")
ADALORA: dict[str, Key] = {
    **{name: entry for name, entry in LORA.items() if name not in _PLAIN},
    "r": key(RANK, 8),
    "target_modules": TARGETS,
    "use_dora": key(choice(False).because("PEFT's AdaLoRA does not have it"), False),
    "use_rslora": key(choice(False).because("it does nothing in AdaLoRA"), False),
    "alpha_pattern": checked_only(
        Field(lambda value: value is None or value == {}, "nothing (it does nothing in AdaLoRA)")
    ),
    "init_r": key(RANK, MISSING),
    "target_r": key(RANK, 8),
    "rank_pattern": key(
        Field(
            is_pattern(list_of(flag(), 1, MAX_RANK).check),
            "null or an object from names ending in .lora_E to lists of true and false",
        ),
        write=lambda value: value or None,
    ),
    "tinit": key(_STEP, 0),
    "tfinal": key(_STEP, 0),
    "deltaT": key(_STEPS, 1),
    "total_step": key(_STEPS, MISSING),
    "beta1": key(FRACTION, 0.85),
    "beta2": key(FRACTION, 0.85),
    "orth_reg_weight": key(number(0, 1_000_000), 0.5),
}
_SAVED_BY_PEFT = "PEFT fills it in when it saves"
PROMPTED: dict[str, Key] = {
    **COMMON,
    "num_virtual_tokens": key(integer(1, 65536), MISSING),
    "token_dim": key(integer(1, 2**24).because(_SAVED_BY_PEFT), MISSING),
    "num_layers": key(integer(1, MAX_LAYER + 1).because(_SAVED_BY_PEFT), MISSING),
    "num_attention_heads": key(integer(1, 2**16).because(_SAVED_BY_PEFT), MISSING),
    "num_transformer_submodules": key(choice(1, 2).because("2 is for an encoder and a decoder"), 1),
}
PREFIX: dict[str, Key] = {
    **PROMPTED,
    "prefix_projection": key(flag(), False),
    "encoder_hidden_size": key(nullable(integer(1, 2**24))),
    "init_weights": key(choice(None, "zero"), write=_null),
}
PROMPT: dict[str, Key] = {
    **PROMPTED,
    # How training began: from random numbers, the vocabulary, or a text and the tokenizer for it.
    # None of it is loaded.
    "prompt_tuning_init": key(
        choice("RANDOM", "SAMPLE_VOCAB", "TEXT"), "RANDOM", write=lambda _: "RANDOM"
    ),
    "prompt_tuning_init_text": checked_only(nullable(text(0, 65536))),
    "tokenizer_name_or_path": checked_only(NAME),
}
PROMPT_EMPTY = {
    "auto_mapping": IMPORTS,
    "modules_to_save": "PEFT saves no whole modules with a prompt",
    "tokenizer_kwargs": "it makes the loader run code that comes with a tokenizer",
}
BEFT: dict[str, Key] = {
    **COMMON,
    "task_type": ANY_TASK,
    "target_modules": TARGETS,
    "modules_to_save": SAVED,
    "init_weights": key(flag(), True, write=lambda _: True),
}
IA3: dict[str, Key] = {
    **COMMON,
    "task_type": ANY_TASK,
    "target_modules": TARGETS,
    # PEFT fills it in by the type of the model before it saves, so a saved file always has it.
    "feedforward_modules": key(
        Field(lambda value: value == [] or is_names(value), f"{_LIST}; it may be empty"),
        MISSING,
        write=lambda value: _sorted(value) or [],
    ),
    "exclude_modules": EXCLUDED,
    "modules_to_save": SAVED,
    "fan_in_fan_out": key(flag(), False),
    "init_ia3_weights": key(flag(), True, write=lambda _: True),
}
NORM: dict[str, Key] = {
    **COMMON,
    "task_type": ANY_TASK,
    "target_modules": TARGETS,
    "modules_to_save": SAVED,
    "exclude_modules": EXCLUDED,
}
NORM_EMPTY = {"auto_mapping": IMPORTS}
BOTTLENECK: dict[str, Key] = {
    **COMMON,
    "target_modules": TARGETS,
    "layers_to_transform": LAYERS,
    "fan_in_fan_out": key(flag(), False),
    "bottleneck_size": key(integer(1, 65536), MISSING),
    "activation": key(choice("relu", "gelu", "silu", "tanh"), "gelu"),
}

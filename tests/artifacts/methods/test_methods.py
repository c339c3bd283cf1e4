"""The table of methods: every key's limits, patterns that are never run, and the one written form
of a configuration.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.artifacts.bundles.judge import BaseFacts
from registry.artifacts.methods import adapters, fits
from registry.artifacts.methods.anatomies import anatomy
from registry.artifacts.methods.configs import FILE
from registry.artifacts.methods.heads import View
from registry.artifacts.methods.table import METHODS
from registry.documents import canonical
from tests.artifacts.bundle_files import (
    LORA,
    adapter_files,
    base_arrays,
    look,
    lora_arrays,
    tiny_base,
)
from tests.assets.worst import matched

TARGETS = {"target_modules": ["q_proj"]}
PROMPT = {"num_virtual_tokens": 2, "token_dim": 8, "num_layers": 2, "num_attention_heads": 4}
LEAST: dict[str, dict[str, Any]] = {
    "LORA": {"r": 4, "lora_alpha": 8, **TARGETS},
    "ADALORA": {"lora_alpha": 8, "init_r": 6, "total_step": 10, **TARGETS},
    "PREFIX_TUNING": PROMPT,
    "PROMPT_TUNING": PROMPT,
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "BEFT": TARGETS,
    "IA3": {**TARGETS, "feedforward_modules": []},
    "BOTTLENECK": {"bottleneck_size": 3, **TARGETS},
}
SHAPES = {name: array.shape for name, array in base_arrays().items()}
BASE = anatomy(SHAPES, {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4})


@pytest.fixture(scope="module")
def base() -> BaseFacts:
    return tiny_base()


def read(kind: str, **changes: Any) -> adapters.Config:
    config, defects = adapters.read_config({"peft_type": kind, **LEAST[kind], **changes})
    assert config is not None, defects
    return config


@pytest.mark.parametrize("kind", METHODS)
def test_the_least_a_method_needs_is_enough_and_nothing_less(kind: str) -> None:
    prediction = METHODS[kind].predict(read(kind).values, BASE)
    assert prediction.tensors
    assert prediction.defects == []
    for key in METHODS[kind].required:
        left = {name: value for name, value in LEAST[kind].items() if name != key}
        config, defects = adapters.read_config({"peft_type": kind, **left})
        assert config is None
        assert [(defect.where, defect.rule) for defect in defects] == [(key, "config-missing")]


@pytest.mark.parametrize("kind", METHODS)
def test_every_default_and_every_written_value_is_one_that_may_be_read(kind: str) -> None:
    """So what is written once is read again, and written the same."""
    once = adapters.written(read(kind), "acme/tiny", "c" * 40)
    config, defects = adapters.read_config(json.loads(once))
    assert config is not None, defects
    assert (
        adapters.written(config, "acme/tiny", "c" * 40)
        == once
        == canonical.encode(json.loads(once))
    )
    always = {key for key, entry in METHODS[kind].keys.items() if entry.stored and not entry.sparse}
    assert set(json.loads(once)) == {"peft_type", *always}


@pytest.mark.parametrize("kind", METHODS)
def test_what_must_stay_empty_is_refused_with_its_reason(kind: str) -> None:
    for key, reason in METHODS[kind].empty.items():
        config, [defect] = adapters.read_config({"peft_type": kind, **LEAST[kind], key: {"a": 1}})
        assert (config, defect.where, defect.rule) == (None, key, "config-forbidden")
        assert reason in defect.detail


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_unknown_keys_without_a_value_are_dropped_and_listed(kind: str, value: Any) -> None:
    raw = {"peft_type": kind, **LEAST[kind], "an_option_of_tomorrow": value}
    config, defects = adapters.read_config(raw)
    assert (config is not None, defects) == (True, [])
    assert config.dropped == ("an_option_of_tomorrow",)
    assert fits.facts_of(config)["dropped_keys"] == ["an_option_of_tomorrow"]
    assert adapters.written(config, "a/b", None) == adapters.written(read(kind), "a/b", None)


@pytest.mark.parametrize("value", [0, 0.0, True, "no", [None], {"a": None}])
def test_unknown_keys_with_a_value_are_refused(value: Any) -> None:
    _, [defect] = adapters.read_config({**LORA, "an_option_of_tomorrow": value})
    assert (defect.where, defect.rule) == ("an_option_of_tomorrow", "config-unknown")


def test_the_number_of_unknown_keys_is_limited() -> None:
    many = {f"option_{number}": None for number in range(adapters.MAX_DROPPED_KEYS)}
    config, defects = adapters.read_config({**LORA, **many})
    assert (config is not None, defects) == (True, [])
    _, [defect] = adapters.read_config({**LORA, **many, "option_more": None})
    assert defect.rule == "config-unknown"


def test_ia3_reads_feedforward_modules_as_peft_does() -> None:
    values = {"target_modules": ["q_proj", "v_proj"], "feedforward_modules": ["v_proj"]}
    prediction = METHODS["IA3"].predict(read("IA3", **values).values, BASE)
    assert prediction.defects == []
    assert set(prediction.tensors.values()) == {(8, 1), (1, 8)}
    assert all(("v_proj" in name) == (size[0] == 1) for name, size in prediction.tensors.items())
    for wrong, rule in ((["up_proj"], "config-at-odds"), (".*proj", "config-value")):
        _, [defect] = adapters.read_config(
            {"peft_type": "IA3", **values, "feedforward_modules": wrong}
        )
        assert (defect.where, defect.rule) == ("feedforward_modules", rule)


def test_all_that_is_wrong_is_said_at_once_and_by_name() -> None:
    _, defects = adapters.read_config(
        {
            **LORA,
            "r": 0,
            "lora_dropout": 2,
            "target_modules": "(a+)+b",
            "corda_config": {"rho": 2},
            "some": 1,
            "init_lora_weights": "pissa",
            "rank_pattern": {".*": 4},
        }
    )
    assert {(defect.where, defect.rule) for defect in defects} == {
        ("r", "config-value"),
        ("lora_dropout", "config-value"),
        ("target_modules", "config-value"),
        ("corda_config", "config-forbidden"),
        ("some", "config-unknown"),
        ("init_lora_weights", "init-unconverted"),
        ("rank_pattern", "config-value"),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": "(a+)+b"},
        {"target_modules": ["(a+)+b"]},
        {"rank_pattern": {"(a+)+b": 4}},
        {"alpha_pattern": {"(a+)+b": 4}},
        {"modules_to_save": ["(a+)+b"]},
        {"modules_to_save": "(a+)+b"},
        {"exclude_modules": "(a+)+b"},
        {"layers_pattern": "(a+)+b"},
        {"target_modules": ["a" * 512] * 4096},
        {"target_modules": ["a." * 255 + "a!"] * 4096},
    ],
)
def test_an_expression_that_would_hang_a_loader_is_refused_unread(
    base: BaseFacts, change: dict[str, Any]
) -> None:
    assert look("adapter", adapter_files(**change), base).defects


def calls(work: Callable[[], object]) -> int:
    """How many calls of functions some work takes, Python's and C's."""
    count = 0

    def called(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("kind", ["LORA", "LN_TUNING"])
def test_matching_takes_steps_in_proportion_to_base_and_configuration(kind: str) -> None:
    """What a hostile configuration can make of the matching is bounded: names are looked up, never
    searched for. `make bench` prints the seconds.
    """

    def steps(size: int) -> int:
        shapes, keys = matched(size)
        whole, config = anatomy(shapes, {}), read(kind, **keys[kind])
        return calls(lambda: config.method.predict(config.values, whole))

    assert steps(2) < 2.2 * steps(1)


def test_what_adalora_pruned_is_held_to_its_masks() -> None:
    module = "model.layers.0.self_attn.q_proj"
    left = read(
        "ADALORA", rank_pattern={f"{module}.lora_E": [True, False, True, False, False, False]}
    )
    tensors = left.method.predict(left.values, BASE).tensors
    assert tensors[f"base_model.model.{module}.lora_E"] == (2, 1)
    assert tensors[f"base_model.model.{module.replace('0', '1')}.lora_E"] == (6, 1)
    for name, mask, rule in (
        (f"{module}.lora_E", [True], "config-at-odds"),
        ("x.lora_E", [True] * 6, "target-unmatched"),
    ):
        config = read("ADALORA", rank_pattern={name: mask})
        assert [defect.rule for defect in config.method.predict(config.values, BASE).defects] == [
            rule
        ]
    for change, rule in (
        ({"rank_pattern": {f"{module}.lora_E": [False] * 6}}, "pruned-away"),
        ({"rank_pattern": {module: [True] * 6}}, "config-value"),
        ({"rank_pattern": {f"{module}.lora_E": [1, 0]}}, "config-value"),
        ({"tinit": 5, "tfinal": 5}, "config-at-odds"),
    ):
        _, defects = adapters.read_config({"peft_type": "ADALORA", **LEAST["ADALORA"], **change})
        assert [defect.rule for defect in defects] == [rule]


def with_ranks(q: int, v: int) -> dict[str, np.ndarray[Any, Any]]:
    arrays = lora_arrays(q)
    return {
        name: array if "q_proj" in name else lora_arrays(v)[name] for name, array in arrays.items()
    }


def test_patterns_are_matched_by_the_end_of_a_name(base: BaseFacts) -> None:
    files = adapter_files(
        with_ranks(4, 2), rank_pattern={"self_attn.v_proj": 2}, alpha_pattern={"v_proj": 3}
    )
    found = look("adapter", files, base)
    assert found.defects == []
    assert (found.facts["rank"], found.facts["max_rank"]) == (4, 4)
    assert found.facts["rank_pattern"] == {"self_attn.v_proj": 2}
    wider = look("adapter", adapter_files(with_ranks(4, 9), rank_pattern={"v_proj": 9}), base)
    assert (wider.defects, wider.facts["max_rank"]) == ([], 9)


def test_a_pattern_means_one_thing_or_is_refused(base: BaseFacts) -> None:
    """PEFT takes the first key that matches, in an order that saving changes."""
    twice = {"layers.0.self_attn.q_proj": 2, "q_proj": 4}
    found = look("adapter", adapter_files(alpha_pattern=twice), base)
    assert {(d.where, d.rule) for d in found.defects} == {
        ("alpha_pattern.q_proj", "pattern-ambiguous")
    }
    agreed = dict.fromkeys(twice, 4)
    assert look("adapter", adapter_files(alpha_pattern=agreed), base).defects == []
    # A dot would stand for any character in PEFT's expression; here it is a dot.
    for stranger in ("q.proj", "nonesuch", "proj"):
        found = look("adapter", adapter_files(alpha_pattern={stranger: 4}), base)
        assert {(d.where, d.rule) for d in found.defects} == {
            (f"alpha_pattern.{stranger}", "target-unmatched")
        }


def test_modules_saved_whole_must_be_the_bases_and_are_flagged(base: BaseFacts) -> None:
    norm = "model.layers.0.input_layernorm"
    arrays = {**lora_arrays(), f"base_model.model.{norm}.weight": np.ones(8, np.float32)}
    found = look("adapter", adapter_files(arrays, modules_to_save=[norm]), base)
    assert found.defects == []
    assert [risk.startswith("high: ") and norm in risk for risk in found.facts["risks"]] == [True]
    rules = {
        defect.rule
        for defect in look(
            "adapter", adapter_files(arrays, modules_to_save=["layernorm"]), base
        ).defects
    }
    assert rules == {"module-ambiguous", "target-unmatched", "tensor-unexpected"}
    found = look("adapter", adapter_files(arrays, modules_to_save=[norm], bias="all"), base)
    assert [(defect.where, defect.rule) for defect in found.defects] == [("bias", "config-at-odds")]


def test_a_tied_head_is_the_embedding_once_more(base: BaseFacts) -> None:
    arrays = {**lora_arrays(), "base_model.model.lm_head.weight": np.ones((16, 8), np.float32)}
    assert look("adapter", adapter_files(arrays, modules_to_save=["lm_head"]), base).defects == []
    arrays["base_model.model.lm_head.weight"] = np.ones((16, 9), np.float32)
    [defect] = look("adapter", adapter_files(arrays, modules_to_save=["lm_head"]), base).defects
    assert defect.rule == "tensor-shape"


def test_the_written_form_is_one_however_it_came(base: BaseFacts) -> None:
    """The original, its own written form, and the same said otherwise, are one manifest."""
    bound = BaseFacts(base.base_root, base.shapes, base.config, "acme/tiny", "c" * 40)
    first = look("adapter", adapter_files(), bound)
    assert first.rewritten is not None
    said = {
        "target_modules": ["q_proj", "v_proj", "q_proj"],
        "rank_pattern": None,
        "peft_version": "0.18.0",
        "layers_to_transform": [],
        "base_model_name_or_path": "/elsewhere",
    }
    for files in (adapter_files() | {FILE: first.rewritten}, adapter_files(**said)):
        again = look("adapter", files, bound)
        assert (again.manifest_digest, again.unbound_digest) == (
            first.manifest_digest,
            first.unbound_digest,
        )
    alone = look("adapter", adapter_files() | {FILE: first.rewritten})
    assert alone.manifest_digest == alone.unbound_digest == first.unbound_digest
    assert {file.path for file in first.files} == set(adapter_files())


def test_a_configuration_says_which_base_it_means_and_other_bases_are_a_defect(
    base: BaseFacts,
) -> None:
    other = ["sha256:other"]
    named = look(
        "adapter", adapter_files(base_model_name_or_path="acme/other", revision="v2"), base
    ).named_base
    assert named is not None
    assert (named.name, named.revision, named.bound_to) == ("acme/other", "v2", base)
    assert [defect.rule for defect in named.defects(other)] == ["base-mismatch"]
    assert named.defects([*other, base.base_root]) == named.defects([]) == []
    assert look("adapter", adapter_files(base_model_name_or_path=None), base).named_base is None
    hostile = look("adapter", adapter_files(base_model_name_or_path="a/b\x1b[2J"), base).named_base
    assert hostile is not None and "\x1b" not in hostile.defects(other)[0].detail


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["(a+)+b", "q_proj"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def a_config(draw: st.DrawFn) -> dict[str, Any]:
    """A sound configuration of some method with a few of its keys, or of others' keys, set to
    anything.
    """
    kind = draw(st.sampled_from(list(METHODS)))
    keys = sorted({*METHODS[kind].keys, *METHODS[kind].empty, "peft_type", "new"})
    sound = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "rank_pattern": st.just({"q_proj": 4}),
                "modules_to_save": st.just(["input_layernorm"]),
                "layers_to_transform": st.integers(0, 3),
            },
        )
    )
    changes = draw(st.dictionaries(st.sampled_from(keys), JSON, max_size=3))
    return {"peft_type": kind, **LEAST[kind], **sound, **changes}


@given(raw=a_config() | JSON)
def test_whatever_is_read_there_are_defects_or_a_form_that_reads_itself(raw: Any) -> None:
    """No exception of any kind, and no text that came ever stands where PEFT would run it as an
    expression.
    """
    config, defects = adapters.read_config(raw)
    assert (config is None) == bool(defects)
    if config is None:
        return
    text = adapters.written(config, None, None)
    again, defects = adapters.read_config(json.loads(text))
    assert again is not None, defects
    assert adapters.written(again, None, None) == text
    fits.facts_of(config)
    fits.fit("x", config, [], View(BASE))
    patterns = [
        name
        for key in ("target_modules", "modules_to_save")
        for name in json.loads(text).get(key) or []
    ]
    patterns += [
        name
        for key in ("rank_pattern", "alpha_pattern")
        for name in json.loads(text).get(key) or {}
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_.]+", name) for name in patterns)

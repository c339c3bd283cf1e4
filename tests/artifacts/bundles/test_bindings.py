"""An adapter's tokenizer is its base's, whichever files say it; and every form of a tokenizer
enters the base root.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.artifacts.bundles.judge import BaseFacts, base_facts
from registry.documents.differences import differences, written
from tests.artifacts.bundle_files import Files, adapter_files, base_files, broken, declared, look
from tests.assets.pieces import trained

TOKENIZER: dict[str, Any] = {
    "added_tokens": [{"id": 2, "content": "<end>", "special": True}],
    "truncation": None,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
}
SETTINGS: dict[str, Any] = {
    "eos_token": "<end>",
    "model_max_length": 10**30,
    "tokenizer_class": "X",
    "pad_token": None,
}


def encoded(document: Any, **more: Any) -> bytes:
    return json.dumps({**document, **more}).encode()


def whole_base() -> Files:
    return base_files() | {
        "tokenizer.json": encoded(TOKENIZER),
        "tokenizer_config.json": encoded(SETTINGS),
    }


def slow_base() -> Files:
    """A base whose tokenizer stands in several files."""
    files = {path: data for path, data in base_files().items() if path != "tokenizer.json"}
    return files | {
        "vocab.json": b'{"a":0,"b":1}',
        "merges.txt": b"#version: 0.2\n",
        "tokenizer_config.json": encoded(SETTINGS),
        "special_tokens_map.json": b'{"eos_token":"<end>"}',
    }


def facts(files: Files) -> BaseFacts:
    listed, read = declared(files)
    return base_facts(listed, read)


@pytest.fixture(scope="module")
def base() -> BaseFacts:
    return facts(whole_base())


SAME: dict[str, Files] = {
    "byte for byte": {
        "tokenizer.json": encoded(TOKENIZER),
        "tokenizer_config.json": encoded(SETTINGS),
    },
    "written otherwise": {
        "tokenizer.json": json.dumps(TOKENIZER, indent=2, sort_keys=True).encode()
    },
    "where it was loaded from": {
        "tokenizer_config.json": encoded(SETTINGS, is_local=True, name_or_path="out/x")
    },
    "an empty key": {"tokenizer_config.json": encoded(SETTINGS, unk_token=None)},
    "special tokens": {
        "special_tokens_map.json": b'{"eos_token":{"content":"<end>","lstrip":false}}'
    },
    "added tokens": {"added_tokens.json": b'{"<end>":2}'},
    "a shorter context": {"tokenizer_config.json": encoded(SETTINGS, model_max_length=2048)},
    "cut and filled": {
        "tokenizer.json": encoded(
            TOKENIZER, truncation={"max_length": 8}, padding={"pad_id": 2, "pad_token": "<end>"}
        )
    },
    "padded with its end": {"tokenizer_config.json": encoded(SETTINGS, pad_token="<end>")},
    "padded with its end, apart": {
        "special_tokens_map.json": b'{"eos_token":"<end>","pad_token":{"content":"<end>"}}'
    },
}


@pytest.mark.parametrize("name", sorted(SAME))
def test_the_base_s_own_tokenizer_may_lie_beside_an_adapter(base: BaseFacts, name: str) -> None:
    assert broken(look("adapter", adapter_files() | SAME[name], base)) == []


OTHER: dict[str, tuple[Files, tuple[str, str, str]]] = {
    "another key": (
        {"tokenizer_config.json": encoded(SETTINGS, eos_token="a")},
        ("tokenizer_config.json", "eos_token", "tokenizer-mismatch"),
    ),
    "a key more": (
        {"tokenizer_config.json": encoded(SETTINGS, fix_mistral_regex=True)},
        ("tokenizer_config.json", "fix_mistral_regex", "tokenizer-mismatch"),
    ),
    "an id after each text": (
        {"tokenizer_config.json": encoded(SETTINGS, add_eos_token=True)},
        ("tokenizer_config.json", "add_bos_token, add_eos_token", "tokenizer-mismatch"),
    ),
    "padded with a word": (
        {"tokenizer_config.json": encoded(SETTINGS, pad_token="a")},
        ("tokenizer_config.json", "pad_token", "tokenizer-mismatch"),
    ),
    "padded with no text": (
        {"tokenizer_config.json": encoded(SETTINGS, pad_token=["<end>"])},
        ("tokenizer_config.json", "pad_token", "tokenizer-mismatch"),
    ),
    "two tokens swapped": (
        {
            "tokenizer.json": encoded(
                TOKENIZER, model={**TOKENIZER["model"], "vocab": {"a": 1, "b": 0}}
            )
        },
        ("tokenizer.json", "model.vocab", "tokenizer-mismatch"),
    ),
    "a token more": (
        {
            "tokenizer.json": encoded(
                TOKENIZER, added_tokens=[*TOKENIZER["added_tokens"], {"id": 3, "content": "<x>"}]
            )
        },
        ("tokenizer.json", "<x>", "tokens-added"),
    ),
    "a token more, apart": (
        {"added_tokens.json": b'{"<end>":2,"<x>":3}'},
        ("added_tokens.json", "<x>", "tokens-added"),
    ),
    "other special tokens": (
        {"special_tokens_map.json": b'{"eos_token":"b"}'},
        ("special_tokens_map.json", "eos_token", "tokenizer-mismatch"),
    ),
    "a file the base has not": ({"merges.txt": b"a b\n"}, ("merges.txt", "", "tokenizer-mismatch")),
}


@pytest.mark.parametrize(
    ("also", "fix"), [({}, "--leave-out tokenizer_config.json"), ({"eos_token": "<x>"}, "Merge")]
)
def test_a_new_token_stays_behind_only_if_it_does_nothing_but_pad(
    base: BaseFacts, also: dict[str, str], fix: str
) -> None:
    files = adapter_files() | {
        "tokenizer_config.json": encoded(SETTINGS, **{"pad_token": "<x>", **also})
    }
    [defect] = look("adapter", files, base).defects
    assert (defect.rule, defect.where, fix in defect.fix) == ("tokens-added", "<x>", True)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_another_tokenizer_is_refused_by_file_and_key(base: BaseFacts, name: str) -> None:
    files, (path, where, rule) = OTHER[name]
    found = look("adapter", adapter_files() | files, base)
    assert (path, where, rule) in [(one.file, one.where, one.rule) for one in found.defects]
    assert all(one.fix for one in found.defects)


def test_half_a_character_is_a_defect(base: BaseFacts) -> None:
    found = look(
        "adapter", adapter_files() | {"tokenizer_config.json": b'{"eos_token":"\\ud800"}'}, base
    )
    assert ("tokenizer_config.json", "bad-json") in broken(found)


def test_a_base_in_several_files_is_held_against_too() -> None:
    bound = facts(slow_base())
    same = {
        path: data for path, data in slow_base().items() if path in ("vocab.json", "merges.txt")
    }
    assert broken(look("adapter", adapter_files() | same, bound)) == []
    found = look("adapter", adapter_files() | same | {"vocab.json": b'{"a":1,"b":0}'}, bound)
    assert broken(found) == [("vocab.json", "tokenizer-mismatch")]


def test_an_adapter_bound_to_nothing_waits_for_its_base() -> None:
    assert broken(look("adapter", adapter_files() | {"tokenizer.json": b'{"model":{}}'})) == []


def test_every_form_of_a_tokenizer_enters_the_base_root() -> None:
    root = look("base", slow_base()).base_root
    assert root is not None
    for path, data in (
        ("vocab.json", b'{"a":1,"b":0}'),
        ("merges.txt", b"#version: 0.2\na b\n"),
        ("vocab.txt", b"a\n"),
        ("tokenizer_config.json", encoded(SETTINGS, eos_token="a")),
        ("added_tokens.json", b'{"<x>":3}'),
        ("special_tokens_map.json", b'{"eos_token":"a"}'),
    ):
        assert look("base", slow_base() | {path: data}).base_root != root, path
    pretty = json.dumps(SETTINGS | {"name_or_path": "x"}, indent=4).encode()
    assert look("base", slow_base() | {"tokenizer_config.json": pretty}).base_root == root


def test_with_a_whole_tokenizer_the_base_root_is_what_it_was() -> None:
    root = look("base", whole_base()).base_root
    assert (
        look(
            "base", whole_base() | {"tokenizer_config.json": encoded(SETTINGS, eos_token="a")}
        ).base_root
        == root
    )
    none = {path: data for path, data in base_files().items() if path != "tokenizer.json"}
    assert look("base", none).base_root not in (root, None)


def with_pieces(*others: str) -> Files:
    """A base whose tokenizer is a SentencePiece model, with these other files of a whole one."""
    files = {
        path: data
        for path, data in whole_base().items()
        if path != "tokenizer.json" or path in others
    }
    return files | {
        "tokenizer.model": trained(model_type="bpe", normalization_rule_name="identity")
    }


OTHER_PIECES = trained(model_type="char", normalization_rule_name="identity")


@pytest.mark.parametrize("others", [(), ("tokenizer.json",)])
def test_a_sentencepiece_model_is_bound_by_its_bytes(others: tuple[str, ...]) -> None:
    bound = facts(with_pieces(*others))
    own = {"tokenizer.model": with_pieces()["tokenizer.model"]}
    assert broken(look("adapter", adapter_files() | own, bound)) == []
    found = look("adapter", adapter_files() | {"tokenizer.model": OTHER_PIECES}, bound)
    assert broken(found) == [("tokenizer.model", "tokenizer-mismatch")]
    found = look("adapter", adapter_files() | {"spiece.model": OTHER_PIECES}, bound)
    assert broken(found) == [("spiece.model", "tokenizer-mismatch")]


def test_a_second_tokenizer_beside_the_whole_one_enters_the_base_root() -> None:
    """Some engines read it instead; a base without one keeps the root it had."""
    root = look("base", whole_base()).base_root
    both = look("base", with_pieces("tokenizer.json"))
    alone = look("base", with_pieces())
    assert not both.defects
    assert not alone.defects
    table = json.dumps({"config": {}, "vocab": [], "version": 3}).encode()
    roots = [
        root,
        both.base_root,
        alone.base_root,
        *(
            look("base", whole_base() | more).base_root
            for more in (
                {"tokenizer.model": OTHER_PIECES},
                {"spiece.model": OTHER_PIECES},
                {"tekken.json": table},
                {"preprocessor_config.json": b'{"do_resize":true}'},
                {"preprocessor_config.json": b'{"do_resize":false}'},
                {"processor_config.json": b'{"do_resize":false}'},
            )
        ),
    ]
    assert None not in roots
    assert len(set(roots)) == len(roots)
    assert (
        look("base", whole_base() | {"preprocessor_config.json": b'{ "do_resize": true}'}).base_root
        == roots[6]
    )


def test_two_sentencepiece_models_are_one_too_many() -> None:
    found = look("base", with_pieces() | {"spiece.model": OTHER_PIECES})
    assert [(one.rule, one.file) for one in found.defects] == [("tokenizer-twice", "spiece.model")]


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**31), 10**31) | FLOATS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_what_differs_is_what_is_written_differently(own: Any, other: Any) -> None:
    def stripped(value: Any) -> Any:
        """An absent key and a null say the same."""
        return (
            {k: stripped(v) for k, v in value.items() if stripped(v) not in (None, {})}
            if isinstance(value, dict)
            else value
        )

    found = list(differences(own, other))
    assert not list(differences(own, own))
    if written(own) == written(other):
        assert found == []
    if not found:
        assert (
            written(stripped(own)) == written(stripped(other))
            or own in ({}, None)
            or other in ({}, None)
        )

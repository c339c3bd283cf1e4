"""Tokenizers by meaning: what gives the same ids and texts is the same, however it is written.

The oracle is the `tokenizers` library, and transformers 5 as the program that writes files anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from registry.artifacts.bundles import files
from registry.artifacts.bundles.judge import BaseFacts, base_facts
from registry.errors import BundleRejected
from tests.artifacts.bundle_files import (
    CONFIG,
    Files,
    adapter_files,
    base_files,
    declared,
    look,
)
from tests.artifacts.tokenizers.families import (
    FAMILIES,
    KINDS,
    TEXTS,
    as_release_4,
    mutations,
)

Folders = Callable[[str], tuple[Path, Path]]
Told = list[tuple[str, str, str]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The files of a family as transformers 4 and as transformers 5 write them."""
    made: dict[str, tuple[Path, Path]] = {}
    root = tmp_path_factory.mktemp("families")

    def folders(family: str) -> tuple[Path, Path]:
        if family not in made:
            old, new = root / family / "old", root / family / "new"
            as_release_4(*FAMILIES[family](), old)
            kind = {"model_type": KINDS.get(family, family)}
            (old / "config.json").write_text(json.dumps(kind))
            AutoTokenizer.from_pretrained(old).save_pretrained(new)
            made[family] = old, new
        return made[family]

    return folders


@pytest.fixture(params=["parsed whole", "read by pieces"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read a tokenizer.json: real ones have more than 4 MiB."""
    if request.param == "read by pieces":
        monkeypatch.setattr(files, "MAX_PARSED_BYTES", 0)
    return str(request.param)


def tokenizer_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "config.json"}


def a_base(tokenizer: Files, family: str) -> BaseFacts:
    plain = {path: data for path, data in base_files().items() if path != "tokenizer.json"}
    config = json.dumps(CONFIG | {"model_type": KINDS.get(family, family)}).encode()
    listed, read = declared(plain | {"config.json": config} | tokenizer)
    return base_facts(listed, read)


def refused(own: Files, base: BaseFacts) -> Told:
    """What is wrong with the tokenizer of an adapter."""
    inspected = look("adapter", adapter_files() | own, base)
    return [
        (defect.file, defect.where, defect.detail)
        for defect in inspected.defects
        if defect.rule in ("tokenizer-mismatch", "tokens-added")
    ]


def changed(own: Files, path: str, **keys: Any) -> Files:
    return own | {path: json.dumps(json.loads(own[path]) | keys).encode()}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_transformers_5_writes_anew_is_the_same_tokenizer(
    folders: Folders, reading: str, family: str
) -> None:
    old, new = folders(family)
    loaded = [AutoTokenizer.from_pretrained(folder) for folder in (old, new)]
    for text in TEXTS:
        ids = [tokenizer(text)["input_ids"] for tokenizer in loaded]
        assert ids[0] == ids[1], text
        assert loaded[0].decode(ids[0]) == loaded[1].decode(ids[0])
    assert (old / "tokenizer.json").read_bytes() != (new / "tokenizer.json").read_bytes() or (
        family in ("t5", "bert")
    )
    base = a_base(tokenizer_of(old), family)
    assert refused(tokenizer_of(new), base) == []
    if family != "llama":  # its steps are others now, and earlier releases would follow them
        assert refused(tokenizer_of(old), a_base(tokenizer_of(new), family)) == []


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_tokenizer_with_other_ids_or_texts_is_refused(
    folders: Folders, reading: str, family: str
) -> None:
    old, new = folders(family)
    base = a_base(tokenizer_of(old), family)
    own = tokenizer_of(new)
    document = json.loads(own["tokenizer.json"])
    before, different = Tokenizer.from_str(json.dumps(document)), 0
    for name, made in mutations(document).items():
        defects = refused(own | {"tokenizer.json": json.dumps(made).encode()}, base)
        try:
            after = Tokenizer.from_str(json.dumps(made))
        except Exception:  # the library refuses it: nobody loads it
            assert defects, name
            continue
        encoded = [[tokenizer.encode(text).ids for text in TEXTS] for tokenizer in (before, after)]
        texts = [[t.decode(ids, False) for ids in encoded[0]] for t in (before, after)]
        different += encoded[0] != encoded[1] or texts[0] != texts[1]
        if encoded[0] != encoded[1] or texts[0] != texts[1]:
            assert defects, name
    assert different >= 4


def test_a_difference_is_named_with_ids(folders: Folders, reading: str) -> None:
    old, new = folders("qwen2")
    base, own = a_base(tokenizer_of(old), "qwen2"), tokenizer_of(new)
    made = mutations(json.loads(own["tokenizer.json"]))
    defects = {
        name: refused(own | {"tokenizer.json": json.dumps(document).encode()}, base)[0]
        for name, document in made.items()
        if name in ("a merge less", "added ids")
    }
    assert defects["a merge less"][1] == "model.merges"
    assert "at rank 3, the base" in defects["a merge less"][2]
    assert defects["added ids"][1] == "added_tokens.<|endoftext|>"
    assert "its id is" in defects["added ids"][2]


RUN_TIME = {
    "cut and filled": (
        "tokenizer.json",
        {
            "truncation": {
                "direction": "Right",
                "max_length": 8,
                "strategy": "LongestFirst",
                "stride": 0,
            },
            "padding": {
                "strategy": "BatchLongest",
                "direction": "Left",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<|vision_pad|>",
            },
        },
    ),
    "a shorter context": ("tokenizer_config.json", {"model_max_length": 2048}),
    "the other side": (
        "tokenizer_config.json",
        {"padding_side": "left", "truncation_side": "left"},
    ),
    "Unsloth's padding": ("tokenizer_config.json", {"pad_token": "<|vision_pad|>"}),
}


@pytest.mark.parametrize("name", sorted(RUN_TIME))
def test_settings_of_a_call_are_no_other_tokenizer(
    folders: Folders, tmp_path: Path, name: str
) -> None:
    old, new = folders("qwen2")
    path, keys = RUN_TIME[name]
    own = changed(tokenizer_of(new), path, **keys)
    assert refused(own, a_base(tokenizer_of(old), "qwen2")) == []
    for file, data in own.items():
        (tmp_path / file).write_bytes(data)
    loaded = [AutoTokenizer.from_pretrained(folder) for folder in (tmp_path, old)]
    text = " ".join(TEXTS)
    assert loaded[0](text)["input_ids"] == loaded[1](text)["input_ids"]


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "another end": ("eos_token", {"eos_token": "<|im_start|>"}),
    "no end": ("eos_token", {"eos_token": None}),
    "a new token as padding": ("<pad>", {"pad_token": "<pad>"}),
    "a word as padding": ("pad_token", {"pad_token": "e"}),
    "a new special token": ("<x>", {"extra_special_tokens": ["<x>"]}),
    "an end after each text": ("add_bos_token, add_eos_token", {"add_eos_token": True}),
    "another class": ("tokenizer_class", {"tokenizer_class": "LlamaTokenizer"}),
    "special tokens as text": ("split_special_tokens", {"split_special_tokens": True}),
    "a blank first": ("add_prefix_space", {"add_prefix_space": True}),
    "another program": ("backend", {"backend": "sentencepiece"}),
    "an unknown key": ("fix_mistral_regex", {"fix_mistral_regex": True}),
    "another file": ("tokenizer_file", {"tokenizer_file": "elsewhere/tokenizer.json"}),
    "cleaned texts": ("clean_up_tokenization_spaces", {"clean_up_tokenization_spaces": True}),
    "a flag of an added token": (
        "added_tokens_decoder.<|im_end|>",
        {"added_tokens_decoder": {"332": {"content": "<|im_end|>", "special": False}}},
    ),
}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_setting_that_changes_the_tokenizer_is_refused(folders: Folders, name: str) -> None:
    old, new = folders("qwen2")
    where, keys = SETTINGS[name]
    own = changed(tokenizer_of(new), "tokenizer_config.json", **keys)
    defects = refused(own, a_base(tokenizer_of(old), "qwen2"))
    assert ("tokenizer_config.json", where) in [(file, place) for file, place, _ in defects]


def ids_as_loaded(own: Files, family: str, folder: Path) -> list[Any]:
    """The ids that transformers gives to texts of all added tokens of the family's base."""
    folder.mkdir(parents=True)
    for file, data in own.items():
        (folder / file).write_bytes(data)
    (folder / "config.json").write_text(json.dumps({"model_type": KINDS.get(family, family)}))
    loaded = AutoTokenizer.from_pretrained(folder)
    listed = json.loads(own["tokenizer.json"])["added_tokens"]
    texts = sorted(token["content"] for token in listed)
    return [loaded(text)["input_ids"] for text in (*TEXTS, *texts, *map(str.upper, texts))]


ORDERS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "backwards": lambda listed: listed[::-1],
    "the first at the end": lambda listed: [*listed[1:], listed[0]],
    "ids exchanged": lambda listed: [
        token | {"id": other["id"]} for token, other in zip(listed, listed[::-1], strict=True)
    ],
    "other ids in the same order": lambda listed: [
        token | {"id": token["id"] + 5 * number} for number, token in enumerate(listed)
    ],
}


@pytest.mark.parametrize("family", ["bert", "llama3", "qwen2", "t5"])
@pytest.mark.parametrize("name", ORDERS)
def test_added_tokens_have_the_ids_of_their_order(
    folders: Folders, reading: str, tmp_path: Path, family: str, name: str
) -> None:
    """The library ignores the stated id; classes that build their tokenizer order by it."""
    old, new = folders(family)
    own = tokenizer_of(new)
    listed = json.loads(own["tokenizer.json"])["added_tokens"]
    made = changed(own, "tokenizer.json", added_tokens=ORDERS[name](listed))
    before, after = (
        Tokenizer.from_str(files_of["tokenizer.json"].decode()).get_added_tokens_decoder()
        for files_of in (own, made)
    )
    same = {number: str(token) for number, token in before.items()} == {
        number: str(token) for number, token in after.items()
    }
    same = same and (
        ids_as_loaded(own, family, tmp_path / "own")
        == ids_as_loaded(made, family, tmp_path / "made")
    )
    contradicts = (family, name) == ("llama3", "ids exchanged")  # loads the same by accident
    defects = refused(made, a_base(tokenizer_of(old), family))
    assert (defects == []) == (same and not contradicts)


def test_a_list_of_added_tokens_replaces_those_of_the_file(
    folders: Folders, tmp_path: Path
) -> None:
    old, new = folders("qwen2")
    own, base = tokenizer_of(new), a_base(tokenizer_of(old), "qwen2")
    listed = {
        str(token.pop("id")): token for token in json.loads(own["tokenizer.json"])["added_tokens"]
    }
    numbers = list(listed)
    expected = ids_as_loaded(own, "qwen2", tmp_path / "own")
    lists = {
        "whole": listed,
        "backwards": {number: listed[number] for number in numbers[::-1]},
        "ids exchanged": dict(zip(numbers, list(listed.values())[::-1], strict=True)),
        "no token": {},
        "twice": {"1": listed[numbers[-1]], **listed},
        **{f"only {number}": {number: listed[number]} for number in numbers},
        **{
            f"without {number}": {n: token for n, token in listed.items() if n != number}
            for number in numbers
        },
    }
    for name, decoder in lists.items():
        made = changed(own, "tokenizer_config.json", added_tokens_decoder=decoder)
        same = ids_as_loaded(made, "qwen2", tmp_path / name) == expected
        assert (refused(made, base) == []) == same, name
        assert same or name not in ("whole", "backwards")


def test_a_listed_token_is_normalized_unless_it_is_special(
    folders: Folders, tmp_path: Path
) -> None:
    own = tokenizer_of(folders("bert")[1])
    document = json.loads(own["tokenizer.json"])
    word = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    word |= {"id": len(document["model"]["vocab"]), "content": "Foo"}
    listed = [*document["added_tokens"], word]
    own = changed(own, "tokenizer.json", added_tokens=listed)
    base, expected = a_base(own, "bert"), ids_as_loaded(own, "bert", tmp_path / "own")
    for stated in (False, True):
        decoder = {
            str(token["id"]): {
                key: value
                for key, value in token.items()
                if key != "id" and (key != "normalized" or stated)
            }
            for token in listed
        }
        made = changed(own, "tokenizer_config.json", added_tokens_decoder=decoder)
        same = ids_as_loaded(made, "bert", tmp_path / str(stated)) == expected
        assert (refused(made, base) == []) == same == stated


def test_the_files_of_a_slow_tokenizer_agree_with_a_whole_one(folders: Folders) -> None:
    for family, path in (("gpt2", "vocab.json"), ("gpt2", "merges.txt"), ("bert", "vocab.txt")):
        old, new = folders(family)
        base = a_base(tokenizer_of(new), family)  # transformers 5 writes none of them
        own = tokenizer_of(old)[path]
        assert refused({path: own}, base) == []
        if path == "vocab.json":
            entries = json.loads(own)
            assert refused({path: json.dumps(entries, sort_keys=True).encode()}, base) == []
            other = json.dumps({**entries, "a": entries["b"], "b": entries["a"]})
        else:
            lines = own.decode().splitlines(keepends=True)
            other = "".join([*lines[:5], lines[6], lines[5], *lines[7:]])
        assert [file for file, _, _ in refused({path: other.encode()}, base)] == [path]


def test_what_cannot_be_compared_says_so_with_a_way_out(folders: Folders) -> None:
    old, new = folders("gpt2")
    slow = {path: data for path, data in tokenizer_of(old).items() if path != "tokenizer.json"}
    base = a_base(slow, "gpt2")
    [(file, _, detail)] = refused(tokenizer_of(new), base)
    assert (file, "cannot be compared" in detail) == ("tokenizer.json", True)
    left = {path: data for path, data in tokenizer_of(new).items() if path != "tokenizer.json"}
    assert refused(left, base) == []


ODD = st.sampled_from(
    [None, True, 5, -1, 1.5, 10**40, "", "x y", "</s>", [], {}, [[]], [5], {"type": "Sequence"}]
)


@st.composite
def bent(draw: st.DrawFn, document: Any) -> Any:
    """The document with some value, anywhere in it, exchanged for another."""
    if isinstance(document, dict) and document and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(document)))
        return document | {key: draw(bent(document[key]))}
    if isinstance(document, list) and document and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(document) - 1))
        return [*document[:at], draw(bent(document[at])), *document[at + 1 :]]
    return draw(ODD)


@settings(max_examples=30)
@given(st.data())
def test_whatever_the_files_say_the_answer_is_a_defect_or_nothing(
    folders: Folders, data: st.DataObject
) -> None:
    family = data.draw(st.sampled_from(["llama3", "t5", "bert"]))
    old, new = folders(family)
    path = data.draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
    own, theirs = tokenizer_of(new), tokenizer_of(old)
    for files_of in (own, theirs):
        if data.draw(st.booleans()):
            made = data.draw(bent(json.loads(files_of[path])))
            files_of[path] = json.dumps(made if isinstance(made, dict) else {"x": made}).encode()
    try:
        base = a_base(theirs, family)
    except BundleRejected:
        return
    refused(own, base)

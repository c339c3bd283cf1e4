"""Tiny tokenizers of the usual families, and the files that transformers 4 wrote for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

TEXTS = [
    "licence of this notice is mit",
    "Ünïcode 你好 🙂 cafe\u0301 café",
    "a\n\tb  c 12345",
    " a blank first",
    "x <s> y</s> z [SEP] q <|im_end|>",
    "<|im_start|>user\nx",
]
CORPUS = [*TEXTS[:4], "the licence of the notice", "it is not known who wrote the words"] * 4
BYTES = pre_tokenizers.ByteLevel.alphabet()
Config = dict[str, Any]


def _around(tokenizer: Tokenizer, before: str = "", after: str = "") -> None:
    single, names = f"{before} $A {after}".strip(), [name for name in (before, after) if name]
    ids = [(name, tokenizer.token_to_id(name)) for name in names]
    pair = f"{single} {before}:1 $B:1 {after}:1" if before else f"{single} $B {after}"
    tokenizer.post_processor = processors.TemplateProcessing(single, pair.replace(" :1", ""), ids)


def _bytes(tokenizer: Tokenizer, special: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=BYTES, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _split() -> pre_tokenizers.PreTokenizer:
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"), last]
    )


def qwen2() -> tuple[Tokenizer, Config]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _split()
    _bytes(tokenizer, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 131072,
        "split_special_tokens": False,
    }


def gpt2() -> tuple[Tokenizer, Config]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    _bytes(tokenizer, ["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, {"model_max_length": 1024}


def llama3() -> tuple[Tokenizer, Config]:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = _split()
    _bytes(tokenizer, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    _around(tokenizer, "<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), tokenizer.post_processor]
    )
    return tokenizer, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
    }


def llama() -> tuple[Tokenizer, Config]:
    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    _around(tokenizer, "<s>")
    return tokenizer, {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
        "legacy": False,
        "sp_model_kwargs": {},
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1000000000000000019884624838656,
    }


def t5() -> tuple[Tokenizer, Config]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    _around(tokenizer, after="</s>")
    return tokenizer, {
        "tokenizer_class": "T5Tokenizer",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_ids": 1,
        "additional_special_tokens": ["<extra_id_0>"],
        "model_max_length": 512,
        "clean_up_tokenization_spaces": True,
    }


def bert() -> tuple[Tokenizer, Config]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer, {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": True,
    }


FAMILIES: dict[str, Callable[[], tuple[Tokenizer, Config]]] = {
    "qwen2": qwen2,
    "gpt2": gpt2,
    "llama3": llama3,
    "llama": llama,
    "t5": t5,
    "bert": bert,
}
KINDS = {"llama3": "llama"}
"""The model_type of a family, where it has another name."""


def as_release_4(tokenizer: Tokenizer, config: Config, folder: Path) -> None:
    """Write the files in the form of transformers 4 and tokenizers 0.19."""
    folder.mkdir(parents=True)
    document = json.loads(tokenizer.to_str())
    model = document["model"]
    if "merges" in model:
        model["merges"] = [" ".join(pair) for pair in model["merges"]]
        if "ByteLevel" in tokenizer.to_str():
            model |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
            del model["ignore_merges"]  # older releases did not write it; set where it is true
            if json.loads(tokenizer.to_str())["model"]["ignore_merges"]:
                model["ignore_merges"] = True
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False, indent=2))
    if "tokenizer_class" in config:
        listed = {str(token.pop("id")): token for token in document["added_tokens"]}
        config = {**config, "added_tokens_decoder": listed}
        names = [
            name for name in config if name.endswith("_token") and config[name] and name[0] != "a"
        ]
        special = {name: {"content": config[name], "lstrip": False} for name in names}
        (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if model["type"] == "BPE" and "unk_token" not in config:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(model["merges"]) + "\n")
    if model["type"] == "WordPiece":
        lines = sorted(model["vocab"], key=model["vocab"].get)
        (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines))


def mutations(document: Config) -> dict[str, Config]:
    """Tokenizers that differ from this one in one thing, by name."""
    changed = {name: json.loads(json.dumps(document)) for name in MUTATIONS}
    for name, change in MUTATIONS.items():
        change(changed[name])
    return {name: made for name, made in changed.items() if made != document}


def _swap_tokens(document: Config) -> None:
    vocabulary = document["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary[-1], vocabulary[-2] = vocabulary[-2], vocabulary[-1]
        return
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def _drop_merge(document: Config) -> None:
    if merges := document["model"].get("merges"):
        del merges[3]


def _swap_merges(document: Config) -> None:
    if merges := document["model"].get("merges"):
        merges[0], merges[1] = merges[1], merges[0]


def _renumber(document: Config) -> None:
    if len(document["added_tokens"]) > 1:
        first, second = document["added_tokens"][:2]
        first["content"], second["content"] = second["content"], first["content"]


def _flag(document: Config) -> None:
    document["added_tokens"][0]["lstrip"] = True


def _lower(document: Config) -> None:
    steps = [{"type": "Lowercase"}, *([document["normalizer"]] if document["normalizer"] else [])]
    document["normalizer"] = {"type": "Sequence", "normalizers": steps}


def _unsplit(document: Config) -> None:
    document["pre_tokenizer"] = {"type": "Whitespace"}


def _no_edges(document: Config) -> None:
    document["post_processor"] = None


def _other_text(document: Config) -> None:
    document["decoder"] = {"type": "Fuse"}


MUTATIONS: dict[str, Callable[[Config], None]] = {
    "tokens": _swap_tokens,
    "a merge less": _drop_merge,
    "ranks": _swap_merges,
    "added ids": _renumber,
    "an added token's flag": _flag,
    "normalizer": _lower,
    "pre_tokenizer": _unsplit,
    "post_processor": _no_edges,
    "decoder": _other_text,
}

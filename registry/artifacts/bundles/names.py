"""The names that files of a bundle may have, and how large each may be."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from registry.artifacts.methods.configs import FILE as CONFIG
from registry.artifacts.tokenizers.sentencepieces import MAX_BYTES

Kind = Literal["base", "adapter", "checkpoint"]

MAX_TEXT_BYTES = 1 << 20
"""Size limit of a text file that has no other limit below."""
LARGER_TEXT_BYTES = {
    "tokenizer.json": 64 << 20,
    "vocab.json": 8 << 20,
    "merges.txt": 8 << 20,
    "vocab.txt": 8 << 20,
    "tokenizer_config.json": 4 << 20,
    "model.safetensors.index.json": 12 << 20,
    "tokenizer.model": MAX_BYTES,
    "spiece.model": MAX_BYTES,
    "sentencepiece.bpe.model": MAX_BYTES,
    "spm.model": MAX_BYTES,
    "tekken.json": 32 << 20,
}
"""Size limits of the text files that may exceed 1 MiB.

Gemma's tokenizer has 33 MB and its tokenizer_config.json 1.2 MB; Mistral's table has 15 MB;
DeepSeek-V3's index of 91,991 tensors has about 9 MB.
"""
MAX_TERMS_BYTES = 128 << 10
"""Size limit of a licence or notice: no licence in SPDX has more than 60,000 bytes."""

INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_WEIGHTS = re.compile(r"model(?:(?:\.safetensors)?-([0-9]{5})-of-([0-9]{5,6}))?\.safetensors")
"""The names of full weights.

DeepSeek-V3 writes `-of-000163` and Qwen 3.5 `model.safetensors-00001-of-00002.safetensors`. The
index lists the files in both cases.
"""
DOCS = {
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "LICENSE-MODEL",
    "LICENSE-CODE",
    "USE_POLICY.md",
    "NOTICE",
    "NOTICE.md",
    "NOTICE.txt",
}
PIECES = frozenset({"tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"})
"""SentencePiece models, under the names that the model families of transformers use.

tokenizer.model may also be a tiktoken table.
"""
ALONE = PIECES | {"tekken.json"}
"""Files that are each a complete tokenizer; some loaders prefer them to tokenizer.json."""
TOKENIZER = ALONE | {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
}
PREPROCESSING = {
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
}
"""How images and sound become numbers: part of a base model that accepts them."""
FULL = (
    DOCS
    | TOKENIZER
    | PREPROCESSING
    | {"config.json", "generation_config.json", "chat_template.jinja", INDEX}
)
"""The files of a base model or a checkpoint, apart from its weights."""
ADAPTER = DOCS | TOKENIZER | {CONFIG, "chat_template.jinja"}
"""The files of an adapter, apart from its weights."""
LOOKALIKES = str.maketrans(
    "асԁеһіјӏорԛѕхуανοАВЕНКМОРСТХΑΒΕΗΙΚΜΝΟΡΤΧ", "acdehijlopqsxyavoABEHKMOPCTXABEHIKMNOPTX"
)
"""Letters of other alphabets that look like letters of the allowed names."""


def is_weights(kind: Kind, path: str) -> bool:
    """Whether a bundle of this kind may hold weights under this name."""
    return (
        path == ADAPTER_WEIGHTS if kind == "adapter" else BASE_WEIGHTS.fullmatch(path) is not None
    )


def max_bytes(path: str) -> int:
    """The size limit of the text file with this name, in bytes."""
    if path.startswith(("LICENSE", "NOTICE", "USE_POLICY")):
        return MAX_TERMS_BYTES
    return LARGER_TEXT_BYTES.get(path, MAX_TEXT_BYTES)


def looks_like(name: str, path: str) -> bool:
    """Whether people would read the path as the name.

    True for a path in other case, with other forms of the same letters, or with letters that look
    the same.
    """
    return len(path) < 200 and plain(path) == name.casefold()


def plain(path: str) -> str:
    """The path in small letters, without accents and letters of other alphabets: as it reads."""
    letters = unicodedata.normalize("NFKD", path).translate(LOOKALIKES).casefold()
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).rstrip(". ")

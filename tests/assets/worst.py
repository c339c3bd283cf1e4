"""The costliest bundles we could think of: what is wrong with each must be found in a second, and
in little memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

from tests.assets.cases import WEIGHTS, Files, entry, packed, sound

MOST = 64 << 20
LARGE, MEDIUM = 16 << 20, 8 << 20


def filled(unit: bytes, size: int, head: bytes = b'{"model":[', tail: bytes = b"0]}") -> bytes:
    """JSON of at most `size` bytes that says the same thing again and again."""
    return head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


def vocabulary(count: int, more: bytes = b"") -> bytes:
    """A tokenizer of so many pieces, and what is wrong with it at its very end."""
    pieces = b",".join(b'"t%d":%d' % (n, n) for n in range(count))
    return b'{"model":{"vocab":{' + pieces + more + b"}}}"


def like_gemma(more: str = "") -> bytes:
    """As large and as deep as the tokenizer of Gemma 3: 262,144 pieces, 514,906 merges as pairs, 33
    MB.
    """
    return f"{_gemma()}{more}}}".encode()


@cache
def _gemma() -> str:
    head = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": n,
                "content": f"<unused{n}>",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": False,
            }
            for n in range(6400)
        ],
    }
    odd = "▁é中日ж한\U0001f600"
    vocab = {f"{odd[n % 7]}{n:x}{odd[n % 5]}": n for n in range(262_144)}
    merges = [
        [f"{odd[n % 7]}{n % 999}", f"{odd[n % 3]}{n % 777}{'x' * (n % 5)}"] for n in range(514_906)
    ]
    return (
        json.dumps(head, ensure_ascii=False)[:-1]
        + ',"model":'
        + json.dumps(
            {"type": "BPE", "vocab": vocab, "merges": merges},
            ensure_ascii=False,
            separators=(",\n" + " " * 10, ": "),
        )
    )


def header(count: int, name: str, **other: object) -> bytes:
    """A file of so many tensors of two bytes; with long names, up to 4 MiB of header."""
    return packed(
        {
            name.format(n): entry(n * 2, n * 2 + 2, dtype="F16", shape=[1], **other)
            for n in range(count)
        },
        bytes(2 * count),
    )


def shards(count: int, each: bytes) -> Files:
    """A set of shards, all alike."""
    files = {path: content for path, content in sound().items() if path != WEIGHTS}
    return files | {f"model-{n:05}-of-{count:05}.safetensors": each for n in range(1, count + 1)}


def tokenizer(content: bytes) -> Callable[[], Files]:
    return lambda: sound() | {"tokenizer.json": content}


def _everything() -> Files:
    """Every large file at its limit at once."""
    return sound() | {
        "tokenizer.json": filled(b'"aaaaaaaaaaaaaaaaaaaaaaaa",', MOST),
        "tokenizer.model": pieces(280_000),
        "tekken.json": filled(b"0,", LARGE, b'{"vocab":[', b"0]}"),
        "vocab.json": filled(b'"bbbbbbbbbbbbbbbbbb",', MEDIUM, b'{"a":[', b"0]}"),
        "merges.txt": b"ab cd\n" * (MEDIUM // 6),
        "vocab.txt": b"abcdefghijklmno\n" * (MEDIUM // 16),
        "tokenizer_config.json": filled(b'{"a":1},', 4 << 20),
        "model.safetensors.index.json": filled(
            b'"x":"y",', 12 << 20, b'{"weight_map":{', b'"z":1}}'
        ),
        **{
            name: filled(b"[1],", 1 << 20)
            for name in ("config.json", "generation_config.json", "special_tokens_map.json")
        },
        "README.md": b"`a``" * (1 << 18),
        "LICENSE": b"<a " * 43_000,
        "NOTICE": b"- " * (1 << 16),
        "LICENSE.md": b"](" * (1 << 16),
        "LICENSE.txt": b"N" * (1 << 17),
        "NOTICE.txt": b"---\n" * (1 << 15),
    }


def pieces(count: int, more: bytes = b"") -> bytes:
    """A SentencePiece model of so many pieces, which ends with these bytes in place of what belongs
    there.
    """
    texts = (f"{n:x}".encode() for n in range(count))
    return (
        b"".join(b"\n%c\n%c%b\x15\0\0\0\0" % (len(text) + 7, len(text), text) for text in texts)
        + more
    )


def _ending() -> bytes:
    """Weights whose last bytes say again and again that a ZIP archive ends there."""
    ends = b"PK\x05\x06" * (18 << 10)
    return packed({"a": entry(0, len(ends), dtype="U8", shape=[len(ends)])}, ends)


def _beside() -> Files:
    """A genuine tokenizer of the largest size, and beside it every other table at its limit, each
    right in itself.
    """
    rest = _everything()
    return sound() | {
        "tokenizer.json": like_gemma(),
        "x.py": b"1",
        **{
            name: rest[name]
            for name in (
                "tokenizer.model",
                "merges.txt",
                "vocab.txt",
                "README.md",
                "LICENSE",
                "NOTICE",
                "LICENSE.md",
            )
        },
    }


def matched(size: int) -> tuple[dict[str, tuple[int, ...]], dict[str, dict[str, object]]]:
    """The shapes of a base of 5,700 modules, or as many times more, and by kind of adapter a
    configuration that names as many of them as it may.
    """
    names = [f"m{number}" for number in range(95 * size)]
    shapes = {
        f"model.layers.{layer}.part.{name}.weight": (4, 4) for layer in range(60) for name in names
    }
    many = [*names, *(f"layers.{number}.none" for number in range(1950 * size))]
    most = {
        "target_modules": many,
        "rank_pattern": dict.fromkeys(many[95 * size :] + names[60:], 2),
        "modules_to_save": names[:60],
    }
    return shapes, {"LORA": most, "LN_TUNING": {"target_modules": many}}


def _files() -> Files:
    return sound() | {f"x{n}.py": b"#!/bin/sh" for n in range(1010)}


WORST: dict[str, tuple[Callable[[], Files], str]] = {
    "16 MiB of empty lists": (lambda: tokenizer(filled(b"[],", LARGE))(), "bad-json"),
    "16 MiB of small objects": (lambda: tokenizer(filled(b'{"a":1},', LARGE))(), "bad-json"),
    "16 MiB of floats": (lambda: tokenizer(filled(b"1e308,", LARGE))(), "bad-json"),
    "16 MiB of long numbers": (lambda: tokenizer(filled(b"1" * 4000 + b",", LARGE))(), "bad-json"),
    "16 MiB of one text": (
        lambda: tokenizer(filled(b"x", LARGE, b'{"model":"', b'"}'))(),
        "bad-json",
    ),
    "16 MiB of escapes": (
        lambda: tokenizer(filled(b'"' + b"\\u0041" * 4000 + b'",', LARGE))(),
        "bad-json",
    ),
    "16 MiB of depth": (lambda: tokenizer(filled(b"[", LARGE))(), "bad-json"),
    "16 MiB of lists 14 deep": (
        lambda: tokenizer(filled(b"[" * 14 + b"]" * 14 + b",", LARGE))(),
        "bad-json",
    ),
    "16 MiB of texts like structure": (
        lambda: tokenizer(filled(b'"],},,,,,,,,,,,,,,,",', LARGE))(),
        "bad-json",
    ),
    "64 MiB of blanks": (lambda: tokenizer(filled(b" ", MOST, b"{", b"]"))(), "bad-json"),
    "Gemma with a key twice at its end": (
        lambda: tokenizer(like_gemma(',"model":{}'))(),
        "bad-json",
    ),
    "vocabulary with a key twice at its end": (
        lambda: tokenizer(vocabulary(380_000, b',"t7":1'))(),
        "bad-json",
    ),
    "20,000 tensors, 4 MiB of header": (
        lambda: sound() | {WEIGHTS: header(20_000, "n" * 130 + "{}", more=None)},
        "tensor-fields",
    ),
    "20,000 tensors with a bad type": (
        lambda: sound() | {WEIGHTS: packed({f"t{n}": entry(dtype="F31") for n in range(20_000)})},
        "tensor-dtype",
    ),
    "4 MiB header of empty lists": (
        lambda: sound() | {WEIGHTS: packed(None, bytes(8), raw=filled(b"[],", 4 << 20, b'{"a":['))},
        "header-json",
    ),
    "twelve shards of 20,000 tensors": (
        lambda: shards(12, header(20_000, "model.layers.{}.weight")),
        "header-json",
    ),
    "1,000 shards": (lambda: shards(1000, header(1, "a{}")), "duplicate-tensor"),
    "280,000 pieces and one more": (
        lambda: sound() | {"tokenizer.model": pieces(280_001)},
        "sentencepiece",
    ),
    "200 shards of 4 MiB of header": (
        lambda: shards(200, packed(None, bytes(8), raw=filled(b"x", 4 << 20, b'{"a":"', b'"}'))),
        "header-json",
    ),
    "1,000 shards that end as archives": (lambda: shards(1000, _ending()), "foreign-content"),
    "12 MiB of numbers of 4,000 digits": (
        lambda: (
            sound()
            | {
                "model.safetensors.index.json": filled(
                    b"1" * 4000 + b",", 12 << 20, b'{"weight_map":['
                )
            }
        ),
        "bad-json",
    ),
    "Gemma and all tables beside it": (_beside, "file-not-allowed"),
    "1,024 files": (_files, "file-not-allowed"),
    "index of 12 MiB": (
        lambda: sound() | {"model.safetensors.index.json": filled(b"[],", 12 << 20)},
        "bad-json",
    ),
    "every large file at once": (_everything, "bad-json"),
}

"""A named bundle, and all that is wrong with it; the sound one that the others are changes of.
Plain Python only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Files = dict[str, bytes]
Found = tuple[str, str, str]
"""(rule, file, where)"""
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4,
    "rms_norm_eps": 1e-06,
}
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Case:
    """`make` gives the files; `large` ones are made in memory only. `library` is what safetensors
    says of the weights.
    """

    kind: Literal["base", "adapter"]
    make: Callable[[], Files]
    defects: tuple[Found, ...] = ()
    library: Literal["", "accepts", "refuses"] = ""
    large: bool = False


def entry(begin: int = 0, end: int = 8, **other: Any) -> dict[str, Any]:
    """A tensor of two floats in a header, with whatever else is said of it."""
    return {"dtype": "F32", "shape": [2], "data_offsets": [begin, end]} | other


def packed(header: Any, data: bytes = b"", *, raw: bytes | None = None) -> bytes:
    """A safetensors file with any header at all, also one no library would write."""
    text = raw if raw is not None else json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data


def sound() -> Files:
    """A base model with one of every file that may be there."""
    return {
        "config.json": json.dumps(CONFIG).encode(),
        WEIGHTS: packed(
            {"__metadata__": {"format": "pt"}, "a.weight": entry(), "b.weight": entry(8, 16)},
            bytes(16),
        ),
        "tokenizer.json": b'{"version":"1.0","model":{"type":"BPE",'
        b'"vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}',
        "tokenizer_config.json": b'{"tokenizer_class":"PreTrainedTokenizerFast",'
        b'"model_max_length":1000000000000000019884624838656}',
        "special_tokens_map.json": b'{"eos_token":{"content":"</s>","lstrip":false}}',
        "generation_config.json": b'{"do_sample":false,"eos_token_id":[1,2]}',
        "added_tokens.json": b'{"<pad>":3}',
        "vocab.json": '{"a":0,"b":1,"ab":2,"\u202e\\u0000":3}'.encode(),
        "merges.txt": b"#version: 0.2\na b\n",
        "vocab.txt": "[PAD]\na\nб\n".encode(),
        "chat_template.jinja": b"{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "README.md": CARD.encode(),
        "LICENSE": b"Apache License\n\x0c\nVersion 2.0\n",
        "NOTICE": "Grüße, and thanks to شكرا, \U0001f3f4\U000e0067\U000e0062\U000e007f.".encode(),
    }


CARD = """---
license: apache-2.0
tags: [text-generation]
widget:
- text: "*Hello*, said the *reader*"
---
# A model

<p align="center"><img src="https://example.org/logo.png" width="80"></p>

It reads `<script>` tags as text. JavaScript: no. Training data: application forms.

```html
<script src="x.js"></script>
```
"""


def changed(path: str, content: bytes, *found: tuple[str, str], large: bool = False) -> Case:
    """The sound base with one file put or changed; `found` are (rule, where) in that file."""
    return Case(
        "base",
        lambda: sound() | {path: content},
        tuple((rule, path, at) for rule, at in found),
        large=large,
    )

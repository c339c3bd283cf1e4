"""Bad files beside the weights: foreign contents under every name, hidden and active texts, JSON
with two meanings.
"""

from __future__ import annotations

import io
import json
import tarfile

from tests.assets.cases import CARD, CONFIG, WEIGHTS, Case, Files, changed, sound
from tests.assets.weights import GOOD, ZIP, raw


def tarred() -> bytes:
    """As PyTorch's first .pt files were: a tar archive with a file named pickle in it."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO(b""))
    return held.getvalue()


# Every pickle is inert: headers with nothing behind, or names of what does not exist. None is ever
# loaded.
FOREIGN: dict[str, bytes] = {
    "ZIP archive, as torch.save and numpy.savez write": ZIP,
    "empty ZIP archive": b"PK\x05\x06" + bytes(18),
    "tar archive, as torch.save once wrote": tarred(),
    **{f"pickle of protocol {n}": bytes((0x80, n)) + b"}." + bytes(20) for n in (2, 3, 4, 5)},
    "pickle of torch's second form": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
    "NumPy array": b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': ()}"
    + b" " * 20
    + b"\n",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "GGUF": b"GGUF\x03\0\0\0" + bytes(40),
    "GGML": b"tjgg\x03\0\0\0" + bytes(40),
    "ONNX": b"\x08\x08\x12\x07pytorch\x1a\x052.0.0:\x10\n\x05graph",
    "SentencePiece": b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n",
    "TensorFlow Lite": b"\x1c\0\0\0TFL3" + bytes(20),
    "7-Zip": b"7z\xbc\xaf\x27\x1c\0\x04" + bytes(24),
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0",
    "bzip2": b"BZh9\x17rE8P\x90\0\0\0\0",
    "xz": b"\xfd7zXZ\0\0\x04" + bytes(24),
    "zstandard": b"\x28\xb5\x2f\xfd\x20\0\x01\0\0",
    "LZ4": b"\x04\x22\x4d\x18\x60\x40\x82\0\0\0\0",
    "RAR": b"Rar!\x1a\x07\x01\0" + bytes(20),
    "ELF": b"\x7fELF\x02\x01\x01" + bytes(9),
    "Windows program": b"MZ\x90\0\x03\0\0\0" + bytes(60),
    "Mach-O": b"\xcf\xfa\xed\xfe\x07\0\0\x01",
    "Java class": b"\xca\xfe\xba\xbe\0\0\0\x34",
    "WebAssembly": b"\0asm\x01\0\0\0",
    "compiled Python": b"\xa7\r\r\n" + bytes(12) + b"\xe3",
    "shell script": b"#!/bin/sh\necho hello\n",
    "PDF": b"%PDF-1.7\n1 0 obj\n",
    "SQLite": b"SQLite format 3\0" + bytes(20),
    "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"0" * 64
    + b"\nsize 1\n",
    "image": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "UTF-16": "A model.".encode("utf-16"),
}
OLD_PICKLES = {
    "pickle of protocol 0": b"c__none__\nnothing\n(tR.",
    "pickle of protocol 0, text before": b"(S'Read me'\n0c__none__\nnothing\n(tR.",
    "pickle of protocol 0, an instance": b"(i__none__\nnothing\n.",
    "pickle of protocol 0, no more than data": b"(lp0\nI1\naI2\na.",
    "pickle of protocol 0 that calls, then "
    "breaks": b"c__none__\nnothing\n(tR\nThe rest is prose.\n",
    "pickle of protocol 0, an instance, then "
    "prose": b"(S'Read me'\ni__none__\nnothing\nThe rest is prose.\n",
    "pickle of protocol 0, an object, then prose": b"(c__none__\nnothing\noThe rest is prose.\n",
    "pickle of protocol 1": b"}q\0(X\x01\0\0\0aK\x01u.",
}
CASES: dict[str, Case] = {}
for _name, _content in FOREIGN.items():
    CASES[f"README.md: {_name}"] = changed("README.md", _content, ("foreign-content", ""))
    CASES[f"config.json: {_name}"] = changed("config.json", _content, ("foreign-content", ""))
    CASES[f"as weights: {_name}"] = changed(WEIGHTS, _content, ("foreign-content", ""))
for _name, _content in OLD_PICKLES.items():
    CASES[f"README.md: {_name}"] = changed("README.md", _content, ("foreign-content", ""))
    CASES[f"LICENSE: {_name}"] = changed("LICENSE", _content, ("foreign-content", ""))
    CASES[f"config.json: {_name}"] = changed("config.json", _content, ("bad-json", ""))

PROSE: dict[str, tuple[bytes, str, str]] = {
    "not UTF-8": (b"gr\xfc\xdfe", "not-text", "byte 2"),
    "NUL": (b"A model\0.", "hidden-character", "character 7"),
    "escape sequence": (b"A \x1b[2Jmodel.", "hidden-character", "character 2"),
    "byte order mark": (b"\xef\xbb\xbf# A model", "hidden-character", "character 0"),
    "change of direction": (
        "Do \u202eton\u202c approve.".encode(),
        "hidden-character",
        "character 3",
    ),
    "isolated direction": ("a \u2066b\u2069".encode(), "hidden-character", "character 2"),
    "invisible letters": (
        ("A model." + "".join(chr(0xE0000 + ord(c)) for c in "approve")).encode(),
        "hidden-character",
        "character 8",
    ),
    "a key twice": (
        b"---\nlicense: mit\ntags:\n- a\n'license' : other\n---\nA model.",
        "duplicate-key",
        "line 5",
    ),
    "page": (b"<!DOCTYPE html><html><body>A model</body></html>", "code-as-text", ""),
    "drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "code-as-text", ""),
    "PHP": (b"<?php phpinfo();", "code-as-text", ""),
    "rich text": (b"{\\rtf1 A model}", "code-as-text", ""),
    "Python": (b"import os\n\nprint(os.name)\n", "code-as-text", ""),
    "Python behind a comment": (b"# A model\nfrom os import path\n", "code-as-text", ""),
    "Python function": (b"def load(path):\n    return path\n", "code-as-text", ""),
    "JavaScript": (b"const fs = require('fs');\n", "code-as-text", ""),
    "C": (b"#include <stdio.h>\nint main() { return 0; }\n", "code-as-text", ""),
    "script element": (b"# A model\n\n<ScRiPt>alert(1)</script>", "active-content", ""),
    "frame": (b"# A model\n<iframe src='//example.org'></iframe>", "active-content", ""),
    "event": (b"# A model\n<img src=x onerror=alert(1)>", "active-content", ""),
    "script in a link": (b"[terms](javascript:alert(1))", "active-content", ""),
    "page in a link": (b"[terms](data:text/html;base64,PHNjcmlwdD4=)", "active-content", ""),
    "refresh": (b"# A model\n<meta http-equiv=refresh content=0>", "active-content", ""),
    "object in the front matter": (
        b"---\nlicense: !!python/name:os.system\n---\nA model",
        "active-content",
        "front matter",
    ),
    "object in brackets in the front matter": (
        b"---\ntags: [!!python/name:os.system ]\n---\nA model",
        "active-content",
        "front matter",
    ),
    "object by its whole tag in the front matter": (
        b"---\nlicense: !<tag:yaml.org,2002:python/name:os.system> ''\n---\nA model",
        "active-content",
        "front matter",
    ),
    "object as a key in the front matter": (
        b"---\n? !!python/name:os.system\n: x\n---\nA model",
        "active-content",
        "front matter",
    ),
    "object under another handle in the front matter": (
        b"---\n%TAG ! tag:yaml.org,2002:\nlicense: !python/name:os.system\n---\nA model",
        "active-content",
        "front matter",
    ),
    "bomb in brackets in the front matter": (
        b"---\na: {b: &x [1], c: *x}\n---\nA model",
        "active-content",
        "front matter",
    ),
    "bomb under a key of words in the front matter": (
        b"---\na b: &x [1]\nc d: [*x, *x]\n---\nA model",
        "active-content",
        "front matter",
    ),
    "bomb in the front matter": (
        b"---\na: &a [x]\nb: *a\n---\nA model",
        "active-content",
        "front matter",
    ),
}
for _name, (_content, _rule, _where) in PROSE.items():
    CASES[f"README.md: {_name}"] = changed("README.md", _content, (_rule, _where))
CASES["NOTICE: change of direction"] = changed(
    "NOTICE", "a\u202eb".encode(), ("hidden-character", "character 1")
)
CASES["chat_template.jinja: escape sequence"] = changed(
    "chat_template.jinja", b"\x1b[1m", ("hidden-character", "character 0")
)
CASES["chat_template.jinja: pickle of protocol 0"] = changed(
    "chat_template.jinja", OLD_PICKLES["pickle of protocol 0"], ("foreign-content", "")
)
CASES["vocab.txt: pickle of protocol 0"] = changed(
    "vocab.txt", OLD_PICKLES["pickle of protocol 0"], ("foreign-content", "")
)
CASES["README.md: safetensors"] = changed(
    "README.md", raw(GOOD), ("hidden-character", "character 1")
)
for _name, _text in {
    "card as the Hub has them": CARD,
    "text that begins with an opcode": "countersign\nis a registry.\n",
    "text whose first lines are words": "carbon\ncopy\nto Rob: (see there)\n",
    "text that begins like GGUF": "GGUF versions are elsewhere.\n",
    "no text at all": "",
    "example of code": "A model.\n\n```python\nimport os\n```\n",
    "table in HTML": "<table><tr><td>F1</td><td>0.9</td></tr></table>",
}.items():
    CASES[f"README.md: {_name}"] = changed("README.md", _text.encode())


def config(**more: object) -> bytes:
    return json.dumps(CONFIG | more).encode()


JSON: dict[str, tuple[str, bytes, list[tuple[str, str]]]] = {
    "nothing": ("generation_config.json", b"", [("bad-json", "")]),
    "key twice": ("generation_config.json", b'{"a":1,"a":2}', [("bad-json", "")]),
    "key twice, once escaped": (
        "generation_config.json",
        b'{"a":1,"\\u0061":2}',
        [("bad-json", "")],
    ),
    "key twice below": ("special_tokens_map.json", b'{"x":[{"a":1,"a":1}]}', [("bad-json", "")]),
    "something after it": ("generation_config.json", b'{"a":1} <script>', [("bad-json", "")]),
    "byte order mark": ("config.json", b"\xef\xbb\xbf" + config(), [("bad-json", "")]),
    "NaN": ("generation_config.json", b'{"a":NaN}', [("bad-json", "")]),
    "minus infinity": ("generation_config.json", b'{"a":-Infinity}', [("bad-json", "")]),
    "number beyond a double": ("generation_config.json", b'{"a":1e999}', [("bad-json", "")]),
    "number of 5,000 digits": (
        "generation_config.json",
        b'{"a":' + b"1" * 5000 + b"}",
        [("bad-json", "")],
    ),
    "40 levels": (
        "generation_config.json",
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
        [("bad-json", "")],
    ),
    "100,000 levels": ("generation_config.json", b"[" * 100_000, [("bad-json", "")]),
    "half of a character": ("generation_config.json", b'{"a":"\\ud800"}', [("bad-json", "")]),
    "half of a character as a key": (
        "generation_config.json",
        b'{"\\udc00":1}',
        [("bad-json", "")],
    ),
    "not UTF-8": ("generation_config.json", b'{"a":"\xff"}', [("bad-json", "")]),
    "overlong UTF-8": ("generation_config.json", b'{"a":"\xc0\xaf"}', [("bad-json", "")]),
    "control character": ("generation_config.json", b'{"a":"\0"}', [("bad-json", "")]),
    "too many values": (
        "generation_config.json",
        b'{"a":[' + b"[]," * 120_000 + b"0]}",
        [("bad-json", "")],
    ),
    "list": ("config.json", b"[]", [("json-object", "")]),
    "text": ("generation_config.json", b'"x"', [("json-object", "")]),
    "list of tokens": ("special_tokens_map.json", b"[]", [("json-object", "")]),
    "beyond a megabyte": (
        "generation_config.json",
        b'"' + b"x" * (1 << 20) + b'"',
        [("file-too-large", "")],
    ),
    "no class": ("config.json", b'{"model_type":"llama"}', [("config-value", "architectures")]),
    "no type": ("config.json", b'{"architectures":["X"]}', [("config-value", "model_type")]),
    "type that is no name": (
        "config.json",
        config(model_type="../x\0"),
        [("config-value", "model_type")],
    ),
    "class of 5,000 letters": (
        "config.json",
        config(architectures=["X" * 5000]),
        [("config-value", "architectures")],
    ),
    "whole number beyond a double": (
        "config.json",
        config(vocab_size=2**60),
        [("not-canonical", "")],
    ),
    "code": ("config.json", config(auto_map={"AutoModel": "x.Y"}), [("remote-code", "auto_map")]),
    "code below": (
        "config.json",
        config(text_config={"auto_map": {"AutoModel": "x.Y"}}),
        [("remote-code", "text_config.auto_map")],
    ),
    "code in a list": (
        "config.json",
        config(parts=[{"trust_remote_code": True}]),
        [("remote-code", "parts.trust_remote_code")],
    ),
    "pipelines": (
        "config.json",
        config(custom_pipelines={"x": {"impl": "x.Y"}}),
        [("remote-code", "custom_pipelines")],
    ),
    "kernel of a repository": (
        "config.json",
        config(_attn_implementation="someone/kernel@main"),
        [("remote-code", "_attn_implementation")],
    ),
    "kernel of a repository for a part": (
        "config.json",
        config(experts_implementation={"text_config": "a/b"}),
        [("remote-code", "experts_implementation")],
    ),
    "kernels": (
        "config.json",
        config(kernel_config={"RMSNorm": "a/b:Norm"}),
        [("remote-code", "kernel_config")],
    ),
    "backbone fetched": (
        "config.json",
        config(use_pretrained_backbone=True),
        [("remote-code", "use_pretrained_backbone")],
    ),
    "generation code": (
        "generation_config.json",
        b'{"custom_generate":"a/b"}',
        [("remote-code", "custom_generate")],
    ),
    "tokenizer's code": (
        "tokenizer_config.json",
        b'{"auto_map":{"AutoTokenizer":["x.Y",null]}}',
        [("remote-code", "auto_map")],
    ),
    "tokenizer's class by path": (
        "tokenizer_config.json",
        b'{"tokenizer_class":"a/b--x.Y"}',
        [("config-value", "tokenizer_class")],
    ),
    "tokenizer whose model is a list": (
        "tokenizer.json",
        b'{"version":"1.0","model":[]}',
        [("json-object", "model")],
    ),
    "something else that is JSON": (
        "tokenizer.json",
        b'{"a":1,"b":2}',
        [("json-object", "a"), ("json-object", "b")],
    ),
    "tokenizer that is a list": ("tokenizer.json", b"[]", [("bad-json", "")]),
    "tokenizer with a key twice": (
        "tokenizer.json",
        b'{"model":{"vocab":{"a":0,"a":1}}}',
        [("bad-json", "")],
    ),
    "tokenizer with two models": ("tokenizer.json", b'{"model":{},"model":{}}', [("bad-json", "")]),
    "tokenizer with something after it": ("tokenizer.json", b'{"model":{}}x', [("bad-json", "")]),
    "tokenizer cut off": ("tokenizer.json", b'{"model":{"vocab":{"a":0,', [("bad-json", "")]),
    "tokenizer that is deep": (
        "tokenizer.json",
        b'{"model":' + b"[" * 40 + b"]" * 40 + b"}",
        [("bad-json", "")],
    ),
    "vocabulary of texts": ("vocab.json", b'{"a":"b"}', [("token-table", "a")]),
    "vocabulary with a key twice": ("vocab.json", b'{"a":1,"a":1}', [("bad-json", "")]),
    "added token without a number": ("added_tokens.json", b'{"a":null}', [("token-table", "")]),
    "merges that are code": ("merges.txt", b"import os\nos.abort()\n", [("token-table", "line 2")]),
    "merges with a control": ("merges.txt", b"a \x1b\n", [("token-table", "line 1")]),
    "vocabulary that is one line": ("vocab.txt", b"x" * 300_000, [("token-table", "line 1")]),
    "what is no SentencePiece model": ("tokenizer.model", b"{}", [("sentencepiece", "")]),
    "a SentencePiece model cut off": (
        "spiece.model",
        b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n",
        [("sentencepiece", "byte 16")],
    ),
    "a script by rank": ("tokenizer.model", b"IQ== 0\nimport os\n", [("token-table", "line 2")]),
    "Mistral's table that is a tokenizer": ("tekken.json", b'{"model":{}}', [("json-object", "")]),
    "a preprocessor's code": (
        "preprocessor_config.json",
        b'{"auto_map":{"AutoProcessor":"x.Y"}}',
        [("remote-code", "auto_map")],
    ),
    "vocabulary not in UTF-8": ("vocab.txt", b"a\n\xff\n", [("not-text", "byte 2")]),
}
for _name, (_path, _content, _found) in JSON.items():
    CASES[f"{_path}: {_name}"] = changed(_path, _content, *_found, large=len(_content) > 100_000)

PATHS = {
    ".env": "unsafe-path",
    "../config.json": "unsafe-path",
    "a/../config.json": "unsafe-path",
    "/etc/passwd": "unsafe-path",
    "./config.json": "unsafe-path",
    "a//b.json": "unsafe-path",
    "a/.git/config": "unsafe-path",
    "a\\b.json": "unsafe-path",
    "config\u202enosj.json": "unsafe-path",
    "a\tb": "unsafe-path",
    "README.md\u200b": "unsafe-path",
    "": "unsafe-path",
    "sub/config.json": "file-not-allowed",
    "modeling_x.py": "file-not-allowed",
    "pytorch_model.bin": "file-not-allowed",
    "adapter_model.safetensors": "companion-weights",
    "readme.md": "file-not-allowed",
    "CONFIG.JSON": "file-not-allowed",
    "REАDME.md": "file-not-allowed",
    "conﬁg.json": "file-not-allowed",
    "config.json.": "file-not-allowed",
    "cónfig.json": "file-not-allowed",
    "co\u0301nfig.json": "file-not-allowed",
    "CON": "file-not-allowed",
    "nul.json": "file-not-allowed",
    "config.json:x": "file-not-allowed",
    "model-00001-of-0000१.safetensors": "file-not-allowed",
    "a" * 1000: "file-not-allowed",
    "training_args.bin": "file-not-allowed",
}
SHOWN = {
    "config\u202enosj.json": "config\\u202enosj.json",
    "a\tb": "a\\tb",
    "README.md\u200b": "README.md\\u200b",
    "a" * 1000: "a" * 199 + "…",
}


def _with(path: str) -> Files:
    return sound() | {path: b"{}"}


for _path, _rule in PATHS.items():
    CASES[f"path: {_path[:40]!a}"] = Case(
        "base", lambda path=_path: _with(path), ((_rule, SHOWN.get(_path, _path), ""),)
    )
CASES["path: both forms of a letter"] = Case(
    "base",
    lambda: _with("cónfig.json") | _with("co\u0301nfig.json"),
    (("file-not-allowed", "cónfig.json", ""), ("file-not-allowed", "co\u0301nfig.json", "")),
)

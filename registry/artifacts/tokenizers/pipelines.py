"""The steps of a tokenizer.json in one form: normalizer, pre-tokenizer, post-processor, decoder.

Releases of `tokenizers` write the same step with more or fewer keys, alone or as a sequence of one.
Only what changes ids or decoded text is kept. A step that is not known here is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARTS = ("normalizer", "pre_tokenizer", "decoder", "post_processor")
CHILDREN = ("normalizers", "pretokenizers", "decoders", "processors")
DEFAULTS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("normalizer", "BertNormalizer"): {
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    ("pre_tokenizer", "ByteLevel"): {"add_prefix_space": True, "use_regex": True},
    ("pre_tokenizer", "Split"): {"invert": False},
    ("pre_tokenizer", "Punctuation"): {"behavior": "Isolated"},
    ("pre_tokenizer", "Digits"): {"individual_digits": False},
    ("pre_tokenizer", "Metaspace"): {
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": True,
    },
    ("decoder", "Metaspace"): {"replacement": "▁", "prepend_scheme": "always"},
    ("decoder", "WordPiece"): {"prefix": "##", "cleanup": True},
}
"""Keys that a step has when they are not written (tokenizers 0.23)."""
IDLE: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("pre_tokenizer", "ByteLevel"): ("trim_offsets",),
    ("pre_tokenizer", "Metaspace"): ("str_rep",),
    ("decoder", "ByteLevel"): ("add_prefix_space", "trim_offsets", "use_regex"),
    ("decoder", "Metaspace"): ("str_rep", "split"),
}
"""Keys that change neither ids nor text: offsets, and what only encoding reads."""
MODELS: Mapping[str, Mapping[str, Any]] = {
    "BPE": {
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    },
    "WordPiece": {
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    },
    "Unigram": {"unk_id": None, "byte_fallback": False},
}
AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
"""Of a BPE model: an empty one changes nothing, and transformers 4 wrote it for none."""
PLAIN = {"single": [["A", 0]], "pair": [["A", 0], ["B", 1]]}
"""What happens to one text, and to a pair, without a post-processor."""


def model(written: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model without its vocabulary and merges."""
    kind = written.get("type") or ("BPE" if "merges" in written else None)
    settings = {
        key: value
        for key, value in written.items()
        if key not in ("vocab", "merges", "type")
        and not (kind == "BPE" and key in AFFIXES and value == "")
    }
    return {"type": kind, **_without(settings, MODELS.get(str(kind), {}))}


def step(part: str, written: Any) -> Any:
    """A step, or a list of steps, with only what changes ids or text; None for no step."""
    steps = [_step(part, single) for single in _flat(written)]
    if part == "post_processor":
        steps = [single for single in steps if single is not None and single != PLAIN]
    return steps[0] if len(steps) == 1 else steps or None


def adding(bos: int | None, eos: int | None) -> Any:
    """The post-processor that adds these ids around each text, as transformers 5 builds it."""

    def around(text: str, kind: int) -> list[list[Any]]:
        first = [] if bos is None else [[[bos], kind]]
        return [*first, [text, kind], *([] if eos is None else [[[eos], kind]])]

    template = {"single": around("A", 0), "pair": [*around("A", 0), *around("B", 1)]}
    return None if template == PLAIN else template


def llama(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The steps that LlamaTokenizer of transformers 5.23 builds, whatever its file says."""
    blank = settings.get("add_prefix_space") is not False
    scheme = "never" if not blank else "always" if settings.get("legacy") else "first"
    steps = {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": scheme, "split": False},
        "decoder": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if blank else []),
        ],
    }
    built = {part: step(part, written) for part, written in steps.items()}
    bpe = {"type": "BPE", "fuse_unk": True, "byte_fallback": True}
    return {"model": model(bpe), "puts_blank": blank, **built}


def edges(post_processor: Any) -> tuple[int | None, int | None]:
    """The id that a post-processor puts before a single text, and the one that it puts after."""
    pieces = post_processor.get("single") if isinstance(post_processor, dict) else None
    if not isinstance(pieces, list) or not pieces or ["A", 0] not in pieces:
        return None, None
    ids = [piece[0][0] if isinstance(piece[0], list) and piece[0] else None for piece in pieces]
    return ids[0], ids[-1]


def puts_blank(normalizer: Any, pre_tokenizer: Any) -> bool:
    """Whether a blank is put before a text."""
    for single in [*_flat(normalizer), *_flat(pre_tokenizer)]:
        match single:
            case {"type": "Prepend"}:
                return True
            case {"type": "ByteLevel"} if single.get("add_prefix_space", True):
                return True
            case {"type": "Metaspace"} if single.get("prepend_scheme", "always") != "never":
                return True
    return False


def _flat(written: Any) -> list[Any]:
    """The steps in their order, out of sequences in sequences."""
    if written is None:
        return []
    if isinstance(written, list):
        return [single for child in written for single in _flat(child)]
    if isinstance(written, dict) and written.get("type") == "Sequence":
        children = [written[key] for key in CHILDREN if key in written]
        if len(children) == 1 and isinstance(children[0], list):
            return _flat(children[0])
    return [written]


def _step(part: str, written: Any) -> Any:
    if not isinstance(written, dict) or not isinstance(kind := written.get("type"), str):
        return written
    if part == "post_processor":
        return _template(kind, written)
    settings = {
        key: value for key, value in written.items() if key not in IDLE.get((part, kind), ())
    }
    if kind == "Metaspace" and isinstance(settings.get("add_prefix_space"), bool):
        # Releases before 0.14 say only this much.
        scheme = "always" if settings.pop("add_prefix_space") else "never"
        settings.setdefault("prepend_scheme", scheme)
    return _without(settings, DEFAULTS.get((part, kind), {}))


def _without(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in settings.items()
        if key not in defaults or (type(value), value) != (type(defaults[key]), defaults[key])
    }


def _template(kind: str, written: Mapping[str, Any]) -> Any:
    """A post-processor as the ids around a single text and around the texts of a pair.

    ByteLevel changes only offsets.
    """
    try:
        match kind:
            case "ByteLevel":
                return None
            case "BertProcessing" | "RobertaProcessing":
                first, last = [written["cls"][1]], [written["sep"][1]]
                single = [[first, 0], ["A", 0], [last, 0]]
                more = [["B", 1], [last, 1]]
                if kind == "RobertaProcessing":
                    more = [[last, 0], ["B", 0], [last, 0]]
                return {"single": single, "pair": [*single, *more]}
            case "TemplateProcessing":
                tokens = written.get("special_tokens") or {}
                return {key: [_piece(piece, tokens) for piece in written[key]] for key in PLAIN}
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        pass
    return dict(written)


def _piece(piece: Any, tokens: Mapping[str, Any]) -> list[Any]:
    [(kind, content)] = piece.items()
    name = content["id"]
    return [name if kind == "Sequence" else tokens[name]["ids"], content["type_id"]]

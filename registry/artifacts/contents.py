"""What bytes are, whatever they are called: things never accepted by their signatures, and texts by
what they say.

A signature names what was found; it is not what keeps the rest out. What is no safetensors file
must be a text of its own kind: JSON of the form its readers expect, a token table, or prose in
which nothing is hidden and nothing is active.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Wrong = Callable[[str, str, str, str], None]
"""`wrong(where, rule, detail, fix)`."""

HEAD = 512
"""Bytes from the start that tell what a file is: a tar archive says so at byte 257."""
TAIL = 22 + 0xFFFF
"""Bytes at the end in which a ZIP archive keeps its list: 22 and a comment (APPNOTE.TXT,
4.3.16).
"""
ARCHIVE_END = b"PK\x05\x06"
MAX_ENDS = 64
"""Weights hold none; whoever writes it there again and again wants each of them looked at."""
POINTER = "a pointer of Git LFS, which stands in place of the file"
PICKLE = "a Python pickle, which runs code when it is loaded"
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (
        0,
        b"PK\x03\x04",
        "a ZIP archive, the form of PyTorch's .bin and .pt and NumPy's .npz files, which hold "
        "pickles",
    ),
    (0, ARCHIVE_END, "a ZIP archive"),
    (0, b"PK\x07\x08", "a ZIP archive"),
    *((0, bytes((0x80, protocol)), PICKLE) for protocol in (2, 3, 4, 5)),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy file, which may hold pickles"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (0, b"\x04\x22\x4d\x18", "an LZ4 archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"!<arch>\n", "an ar archive"),
    (257, b"ustar", "a tar archive, the form of PyTorch's first .pt files, which hold pickles"),
    (0, b"\x7fELF", "a program (ELF)"),
    *(
        (0, magic, "a program (Mach-O)")
        for magic in (
            b"\xfe\xed\xfa\xce",
            b"\xfe\xed\xfa\xcf",
            b"\xce\xfa\xed\xfe",
            b"\xcf\xfa\xed\xfe",
        )
    ),
    (0, b"\xca\xfe\xba\xbe", "a program (Java class or universal Mach-O)"),
    (0, b"\0asm", "a program (WebAssembly)"),
    (2, b"\r\r\n", "compiled Python"),
    (2, b"\r\n\0\0\0\0", "compiled Python"),
    (0, b"#!", "a script"),
    (0, b"version https://git-lfs.github.com/spec/", POINTER),
    (0, b"%PDF-", "a PDF document, which may hold scripts"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x89PNG\r\n", "an image"),
    (0, b"\xff\xd8\xff", "an image"),
    (0, b"GIF87a", "an image"),
    (0, b"GIF89a", "an image"),
    (0, b"\xff\xfe", "a text in UTF-16 or UTF-32"),
    (0, b"\xfe\xff", "a text in UTF-16"),
)
WORDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GGUF", "a GGUF file"),
    *((0, magic, "a GGML file") for magic in (b"lmgg", b"fmgg", b"tjgg", b"algg")),
    (0, b"MZ", "a program (Windows)"),
    (0, b"BZh", "a bzip2 archive"),
    (4, b"TFL3", "a TensorFlow Lite model"),
)
"""Signatures that a text may begin with as well: they count where the text is none."""
BINARY = re.compile(rb"[\0-\x08\x0e-\x1f]")
ONNX = re.compile(rb"\x08[\x01-\x1f](?:\x12|\x1a|\x22|\x2a|\x3a)")
"""ModelProto: ir_version, then a text, a model version or the graph (onnx.proto3)."""
PROTOBUF = "a protocol buffer, such as a SentencePiece model"
SENTENCEPIECE = re.compile(rb"\x0a[\x05-\x40]\x0a[\x01-\x40].{1,64}\x15", re.DOTALL)
ACTS = frozenset(
    {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX"}
)
ARGUMENTS = frozenset({"TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
CALLS = frozenset({"REDUCE", "NEWOBJ", "NEWOBJ_EX"})
MAKES = frozenset({"OBJ"})
"""Opcodes that call what was named before: with arguments, or with what stands above a mark."""
MAX_OPCODES = 10_000
"""No prose reads as so many; a pickle may have a million."""
NAMED = re.compile(r"[\w.]+ [\w.]+")

# White space and form feeds (the GPL has some) are text; other controls, changes of the direction
# of writing, and the invisible letters in which a reader is told other things than he sees, are
# not. A flag may be written with the latter.
HIDDEN = re.compile(
    "[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]"
)
WITHIN = (
    range(0xA0),
    range(0x202A, 0x206A),
    (0xFEFF,),
    range(0xFFF9, 0xFFFC),
    range(0xE0000, 0xE0080),
)
HIDES = frozenset(letter for part in WITHIN for letter in map(chr, part) if HIDDEN.search(letter))
"""Each of those, for a text is sooner searched for its letters than for a pattern."""
CONTROLS = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f]")
MARKUP = re.compile(r"\s*(?:<!doctype|<html|<svg|<\?xml|<\?php|<script|<%|\{\\rtf)", re.IGNORECASE)
CODE = re.compile(
    r"(?:from\s+[\w.]+\s+import\s.*|import\s+[\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+)*|import\s.*\sfrom\s+['\"].*"
    r"|(?:async\s+)?def\s+\w+\s*\(.*|class\s+\w+\s*(?:\(.*\))?\s*:.*|@\w[\w.]*(?:\(.*\))?|__import__\s*\(.*"
    r"|(?:exec|eval|print|require|system)\s*\(.*|#include\s*[<\"].*|package\s+[\w.]+;?|using\s+[\w.]+;"
    r"|(?:export\s+)?(?:async\s+)?function\s+\w*\s*\(.*|(?:const|let|var)\s+\w+\s*=.*|fn\s+\w+\s*\(.*|use\s+[\w:]+;)"
)
FENCED = re.compile(
    r"^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1|\Z)|(?<!`)(`{1,8})(?!`)[^`\n]{1,300}\2(?!`)",
    re.MULTILINE | re.DOTALL,
)
ACTIVE = re.compile(
    r"<\s{0,3}(?:script|iframe|style|svg|applet)\b|<\s{0,3}(?:object|embed|base|form|meta|link)\s{1,9}[\w-]{1,30}\s{0,9}="
    r"|<[a-z][^<>\n]{0,500}\son[a-z]{3,20}\s{0,9}="
    r"|(?:\]\(|(?:href|src)\s{0,9}=\s{0,9}[\"']?|<)\s{0,9}(?:javascript|vbscript)\s{0,9}:"
    r"|\bdata:(?:text/html|image/svg|application/)",
    re.IGNORECASE,
)
MAX_TAGS = 20_000
FRONT = re.compile(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.MULTILINE | re.DOTALL)
YAML_ACT = re.compile(
    r"(?:^[ \t]*|[-?:][ \t]+|[\[{,][ \t]*)"
    r"((?:!(?:<[^>\n]{1,200}>|!?[A-Za-z][\w./:!-]*)|&(?!\w{1,30};)[^\s,\[\]{}]+|\*[\w.-]+)"
    r"(?=[\s,\]}]|\Z)|<<[ \t]*:|%TAG[ \t])",
    re.MULTILINE,
)
"""Where a value or a key begins, in a block or within brackets; an entity of HTML is no anchor."""

REMOTE = frozenset(
    {
        "auto_map",
        "trust_remote_code",
        "custom_pipelines",
        "custom_generate",
        "kernel_config",
        "use_kernels",
        "use_pretrained_backbone",
    }
)
"""Keys by which transformers 5 fetches or imports code or other weights (dynamic_module_utils,
hub_kernels, backbones).
"""
IMPLEMENTATIONS = frozenset(
    f"{lead}{part}_implementation{tail}"
    for lead in ("", "_")
    for part in ("attn", "experts")
    for tail in ("", "_internal")
)
"""Their values are names of built-in code, or of a repository from which a kernel is fetched
(hub_kernels.is_kernel).
"""
TEKKEN = frozenset(
    {
        "config",
        "vocab",
        "special_tokens",
        "type",
        "version",
        "image",
        "audio",
        "multimodal",
        "model_settings_builder",
    }
)
"""The parts of a tekken.json (mistral_common/tokens/tokenizers/tekken.py)."""
TOKENIZERS = frozenset(
    {
        "version",
        "truncation",
        "padding",
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "model",
    }
)
"""The parts of a tokenizer.json (tokenizers 0.22, tokenizer/serialization.rs)."""
CLASSES = frozenset(
    {"tokenizer_class", "processor_class", "image_processor_type", "feature_extractor_type"}
)
CLASS = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def foreign(head: bytes) -> str | None:
    """What a file is by its first HEAD bytes, when that is something never accepted; None when
    nothing says so.
    """
    # A safetensors header of 640 bytes starts like a pickle, and one of 35,615 like gzip: look at
    # its brace first.
    if head[8:9] == b"{" and not any(head[4:8]):
        return None
    for at, magic, what in (*SIGNATURES, *WORDS) if BINARY.search(head) else SIGNATURES:
        if head.startswith(magic, at):
            return what
    if ONNX.match(head):
        return "a protocol buffer, such as an ONNX model"
    return PROTOBUF if SENTENCEPIECE.match(head) else None


def ends_as_archive(tail: bytes) -> bool:
    """Do a file's last TAIL bytes close a ZIP archive? Then whoever reads from the end sees other
    contents.
    """
    if tail.count(ARCHIVE_END) > MAX_ENDS:
        return True
    at = len(tail)
    while (at := tail.rfind(ARCHIVE_END, 0, at)) >= 0:
        if len(tail) >= at + 22 and at + 22 + int.from_bytes(
            tail[at + 20 : at + 22], "little"
        ) == len(tail):
            return True
    return False


def is_old_pickle(data: bytes) -> bool:
    """A pickle of protocol 0 or 1, which has no signature: its opcodes are read to their end, and
    nothing is done.

    Prose stops being one after a word or so.
    """
    import pickletools  # costs 10 ms, and only texts are asked

    acts = marked = given = False
    try:
        for count, (opcode, argument, at) in enumerate(pickletools.genops(data)):
            if count > MAX_OPCODES:
                return True
            # What is called before the opcodes end in nonsense is called all the same.
            if acts and ((opcode.name in MAKES and marked) or (opcode.name in CALLS and given)):
                return True
            named = argument is not None and NAMED.fullmatch(str(argument)) is not None
            if opcode.name == "INST" and marked and named:
                return True
            acts = acts or (opcode.name in ACTS and (argument is None or named))
            marked = marked or opcode.name == "MARK"
            given = given or opcode.name in ARGUMENTS
            if opcode.name == "STOP":
                return acts or (at is not None and at > 1 and not data[at + 1 :].strip())
    except Exception:  # whatever the reader of opcodes says to what is no pickle
        return False
    return False


def check_prose(text: str, wrong: Wrong) -> None:
    """README, licence and notice: readable as they are, with nothing hidden and nothing that a
    viewer would run.
    """
    check_plain(text, wrong)
    if MARKUP.match(text):
        wrong(
            "",
            "code-as-text",
            "it is a page or a program, not a text",
            "Write it as Markdown or plain text.",
        )
        return
    front = FRONT.match(text)
    if front and (found := YAML_ACT.search(front[1])):
        wrong(
            "front matter",
            "active-content",
            f"{found[1][:60]!r} is a tag, an anchor or an alias of YAML",
            "Write plain values: a reader would build objects, or one text a million times.",
        )
    if front:
        _check_keys(front[1], wrong)
    body = text[front.end() :] if front else text
    first = next(
        (line.strip() for line in body.splitlines() if line.strip() and not line.startswith("# ")),
        "",
    )
    if CODE.fullmatch(first[:1000]):
        wrong(
            "",
            "code-as-text",
            f"it begins as a program does: {first[:60]!r}",
            "Write what it is for first, and code between ``` lines.",
        )
    if body.count("<") > MAX_TAGS:
        wrong("", "active-content", f"it has more than {MAX_TAGS} tags", "Write it as Markdown.")
    elif found := ACTIVE.search(FENCED.sub(" ", body)):
        wrong(
            "",
            "active-content",
            f"{found[0][:60]!r} would act where the text is shown as a page",
            "Take it out, or put an example between ``` lines.",
        )


def _check_keys(front: str, wrong: Wrong) -> None:
    """Of two keys of one name some readers take the first and others the last: whose licence is it
    then?
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(front.split("\n"), 2):
        key, colon, value = line.rstrip("\r").partition(":")
        if not colon or key[:1] in ("", " ", "\t", "#", "-") or value[:1] not in ("", " ", "\t"):
            continue
        name = key.strip().strip("\"'")
        if name in seen:
            wrong(
                f"line {number}",
                "duplicate-key",
                f"the key {name[:60]!r} stands on line {seen[name]} already",
                "Keep one of them.",
            )
            return
        seen[name] = number


def check_plain(text: str, wrong: Wrong) -> None:
    """No character that a reader cannot see but a machine obeys."""
    if HIDES.isdisjoint(text):
        return
    if found := HIDDEN.search(text):
        wrong(
            f"character {found.start()}",
            "hidden-character",
            f"it holds U+{ord(found[0]):04X}, which is not seen",
            "Take it out: a reader must see what is there.",
        )


MERGE = re.compile(r"(?:#version[^\n]{0,100}|[^ \n]{1,1024} [^ \n]{1,1024}|)\r?\n")
MERGES = re.compile(f"(?:{MERGE.pattern})*")
MAX_LINES = 600_000
MAX_LINE = 1024


def check_tokens(path: str, texts: Iterator[str], wrong: Wrong) -> None:
    """merges.txt: two pieces and a blank a line; vocab.txt: one piece a line, of at most 1,024
    characters.

    `texts` are whole lines, many at a time: looked at together, and one by one only where something
    is wrong.
    """
    merges, before = path == "merges.txt", 0
    for text in texts:
        lines = text.count("\n")
        if (
            before + lines > MAX_LINES
            or CONTROLS.search(text)
            or not (
                MERGES.fullmatch(text if text.endswith("\n") else text + "\n")
                if merges
                else max(map(len, text.split("\n"))) <= MAX_LINE
            )
        ):
            number = next(
                (n for n, line in enumerate(text.split("\n"), 1) if not _tokens(line, merges)),
                MAX_LINES - before + 1,
            )
            wanted = (
                "two pieces with one blank between them"
                if merges
                else f"one piece of at most {MAX_LINE} characters"
            )
            wrong(
                f"line {before + number}",
                "token-table",
                f"each of at most {MAX_LINES} lines holds {wanted}",
                "Save the tokenizer again with transformers.",
            )
            return
        before += lines


def _tokens(line: str, merges: bool) -> bool:
    if CONTROLS.search(line):
        return False
    return MERGE.fullmatch(line + "\n") is not None if merges else len(line) <= MAX_LINE


def check_document(path: str, document: Any, wrong: Wrong, *, deep: bool = True) -> None:
    """A JSON file of at most a few megabytes: an object, without a key by which a loader fetches or
    imports code.
    """
    if not isinstance(document, dict):
        wrong("", "json-object", "it is no JSON object", "Save the model again.")
        return
    for where, key, value in (
        _members(document) if deep else ((key, key, value) for key, value in document.items())
    ):
        if key in REMOTE and value:
            wrong(
                where,
                "remote-code",
                f"{key} makes a loader run code that comes with the model",
                f"Remove {key} (import --without-code does); only architectures built into "
                "transformers are accepted.",
            )
        elif key in IMPLEMENTATIONS and _slashed(value):
            wrong(
                where,
                "remote-code",
                f"{key} {str(value)[:60]!r} is fetched from a repository and run",
                "Name an implementation built into transformers, or remove the key.",
            )
        elif (
            key in CLASSES
            and value is not None
            and not (isinstance(value, str) and CLASS.fullmatch(value))
        ):
            wrong(
                where,
                "config-value",
                f"{key} is {str(value)[:60]!r}, which names no class of transformers",
                "Save the model again with transformers.",
            )
    if path == "added_tokens.json" and not all(type(number) is int for number in document.values()):
        wrong(
            "",
            "token-table",
            "each token has a whole number",
            "Save the tokenizer again with transformers.",
        )


def _slashed(value: Any) -> bool:
    return any(
        "/" in one
        for one in (value.values() if isinstance(value, dict) else [value])
        if isinstance(one, str)
    )


def _members(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every key at any depth, as (path, key, value), without recursion."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        lead, node = waiting.pop()
        if type(node) is dict:
            for key, value in node.items():
                yield lead + key, key, value
                if type(value) in (dict, list):
                    waiting.append((f"{lead}{key[:60]}."[-300:], value))
        else:
            waiting.extend((lead, one) for one in node if type(one) in (dict, list))


def check_outline(path: str, kinds: dict[str, str], wrong: Wrong) -> None:
    """A large JSON file that was read by pieces, by what kind of value its outermost keys have."""
    if path == "tokenizer.json":
        for key in sorted(set(kinds) - TOKENIZERS):
            wrong(
                key,
                "json-object",
                "a tokenizer has no such part",
                "Save the tokenizer again with transformers.",
            )
        if kinds.get("model", "object") != "object":
            wrong(
                "model",
                "json-object",
                "a tokenizer's model is an object",
                "Save the tokenizer again with transformers.",
            )
    if path == "tekken.json" and (
        not set(kinds) <= TEKKEN or kinds.get("vocab") != "list" or kinds.get("config") != "object"
    ):
        wrong(
            "",
            "json-object",
            "it is not Mistral's table: a config, a vocab, and what belongs to them",
            "Fetch the file again, or leave it out where tokenizer.json says the same.",
        )
    if path == "vocab.json" and not set(kinds.values()) <= {"number"}:
        first = next(key for key, kind in kinds.items() if kind != "number")
        wrong(
            first,
            "token-table",
            "each token has a whole number",
            "Save the tokenizer again with transformers.",
        )

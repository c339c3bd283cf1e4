"""Signatures: files that are never accepted, whatever their names are.

A signature names what a file is; it is not what keeps other files out. A file that is not
safetensors must be a text of its own kind, which `contents` checks.
"""

from __future__ import annotations

import re

HEAD = 512
"""Bytes from the start that identify a file: a tar archive has its signature at byte 257."""
TAIL = 22 + 0xFFFF
"""Bytes at the end in which a ZIP archive has its list: 22 and a comment (APPNOTE.TXT, 4.3.16)."""
ARCHIVE_END = b"PK\x05\x06"
MAX_ENDS = 64
"""More ends than this are an attack: weights contain none, and each one costs a check."""
POINTER = "a pointer of Git LFS, which replaces the file"
PICKLE = "a Python pickle, which runs code when it is loaded"
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (
        0,
        b"PK\x03\x04",
        "a ZIP archive, the form of PyTorch's .bin and .pt and NumPy's .npz files, which contain "
        "pickles",
    ),
    (0, ARCHIVE_END, "a ZIP archive"),
    (0, b"PK\x07\x08", "a ZIP archive"),
    *((0, bytes((0x80, protocol)), PICKLE) for protocol in (2, 3, 4, 5)),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy file, which may contain pickles"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (0, b"\x04\x22\x4d\x18", "an LZ4 archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"!<arch>\n", "an ar archive"),
    (257, b"ustar", "a tar archive, the form of PyTorch's first .pt files, which contain pickles"),
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
    (0, b"%PDF-", "a PDF document, which may contain scripts"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x89PNG\r\n", "an image"),
    (0, b"\xff\xd8\xff", "an image"),
    (0, b"GIF87a", "an image"),
    (0, b"GIF89a", "an image"),
    (0, b"\xff\xfe", "a text in UTF-16 or UTF-32"),
    (0, b"\xfe\xff", "a text in UTF-16"),
)
"""Offset, bytes and description of each signature."""
TEXT_LIKE_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GGUF", "a GGUF file"),
    *((0, magic, "a GGML file") for magic in (b"lmgg", b"fmgg", b"tjgg", b"algg")),
    (0, b"MZ", "a program (Windows)"),
    (0, b"BZh", "a bzip2 archive"),
    (4, b"TFL3", "a TensorFlow Lite model"),
)
"""Signatures with which a text may begin: they count only in binary files."""
BINARY = re.compile(rb"[\0-\x08\x0e-\x1f]")
ONNX = re.compile(rb"\x08[\x01-\x1f](?:\x12|\x1a|\x22|\x2a|\x3a)")
"""The beginning of a ModelProto: ir_version, then a text, a version or the graph (onnx.proto3)."""
PROTOBUF = "a protocol buffer, such as a SentencePiece model"
SENTENCEPIECE = re.compile(rb"\x0a[\x05-\x40]\x0a[\x01-\x40].{1,64}\x15", re.DOTALL)
ACTING_OPCODES = frozenset(
    {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX"}
)
ARGUMENT_OPCODES = frozenset({"TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
CALL_OPCODES = frozenset({"REDUCE", "NEWOBJ", "NEWOBJ_EX"})
"""Opcodes that call what was named before, with arguments."""
MARKED_CALL_OPCODES = frozenset({"OBJ"})
"""Opcodes that call what was named before, with everything above a mark."""
MAX_OPCODES = 10_000
"""Prose never reads as so many opcodes; a pickle may have a million."""
GLOBAL_NAME = re.compile(r"[\w.]+ [\w.]+")
"""The argument of GLOBAL and INST: a module and a name in it."""


def foreign(head: bytes) -> str | None:
    """What a file is by its first HEAD bytes, if it is never accepted; None otherwise."""
    # A safetensors header of 640 bytes starts like a pickle, and one of 35,615 bytes like gzip, so
    # its brace is checked first.
    if head[8:9] == b"{" and not any(head[4:8]):
        return None
    binary = BINARY.search(head) is not None
    for offset, magic, description in (*SIGNATURES, *(TEXT_LIKE_SIGNATURES if binary else ())):
        if head.startswith(magic, offset):
            return description
    if ONNX.match(head):
        return "a protocol buffer, such as an ONNX model"
    return PROTOBUF if SENTENCEPIECE.match(head) else None


def ends_as_archive(tail: bytes) -> bool:
    """Whether a file's last TAIL bytes close a ZIP archive.

    Programs that read such a file from the end see other contents.
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
    """Whether a file is a pickle of protocol 0 or 1, which has no signature.

    Its opcodes are read to their end, and none is executed. Prose stops being opcodes after about a
    word.
    """
    import pickletools  # Costs 10 ms, and only texts need it.

    acts = marked = has_arguments = False
    try:
        for count, (opcode, argument, at) in enumerate(pickletools.genops(data)):
            if count > MAX_OPCODES:
                return True
            # A call happens even when nonsense follows it.
            calls = (opcode.name in MARKED_CALL_OPCODES and marked) or (
                opcode.name in CALL_OPCODES and has_arguments
            )
            if acts and calls:
                return True
            named = argument is not None and GLOBAL_NAME.fullmatch(str(argument)) is not None
            if opcode.name == "INST" and marked and named:
                return True
            acts = acts or (opcode.name in ACTING_OPCODES and (argument is None or named))
            marked = marked or opcode.name == "MARK"
            has_arguments = has_arguments or opcode.name in ARGUMENT_OPCODES
            if opcode.name == "STOP":
                return acts or (at is not None and at > 1 and not data[at + 1 :].strip())
    except Exception:  # The reader of opcodes raises anything for what is not a pickle.
        return False
    return False

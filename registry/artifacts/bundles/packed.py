"""The shapes of a base's weights before they were packed.

An adapter is trained on the weights that a quantised file stands for: a matrix of 4-bit codes in a
column of bytes is no module of one input. Where the packing is not known, the packed tensor is left
out, so that it is never taken for the weight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from registry.artifacts.bundles.files import Bundle
from registry.artifacts.weights.tensors import TensorInfo, fetch
from registry.documents.strict_json import loads
from registry.errors import RegistryError

Shape = tuple[int, ...]
Whole = Callable[[str], bytes]
STATE = re.compile(r"(.+\.weight)\.quant_state\.bitsandbytes__(?:nf4|fp4)")
MAX_STATE = 64 << 10
"""Bytes of a quant_state or a stored shape."""
PACKED = frozenset({"U8", "I8", "I32", "U32", "I64"})
"""Types of codes: no weight of a network that is trained is stored in one."""
AUXILIARY = re.compile(
    r"(?:.+\.)?(?:weight\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+)"
    r"|SCB|weight_format|qweight|qzeros|scales|g_idx|weight_packed|weight_shape|weight_g_idx"
    r"|weight_scale|weight_scale_inv|weight_zero_point|weight_global_scale|input_global_scale"
    r"|input_scale|output_scale|[kv]_scale)"
)


def quantisation_of(config: Mapping[str, Any]) -> str | None:
    """The method by which a config.json says that its weights are quantised, if it says so."""
    settings = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(settings, dict) or not settings:
        return None
    method = settings.get("quant_method")
    return method[:40] if isinstance(method, str) and method else "an unnamed method"


def logical_shapes(bundle: Bundle) -> dict[str, Shape]:
    """The shape of each tensor by name, as it is after unpacking."""
    places = {
        info.name: (path, info)
        for path, header in bundle.weights.items()
        for info in header.tensors
    }
    tensors = {name: info for name, (_, info) in places.items()}
    config = bundle.documents.get("config.json")
    config = config if isinstance(config, dict) else {}
    if quantisation_of(config) is None and not any(map(STATE.fullmatch, tensors)):
        return {name: info.shape for name, info in tensors.items()}

    def whole(name: str) -> bytes:
        path, info = places[name]
        size = info.end - info.start
        if size > MAX_STATE:
            raise ValueError("too large")
        return fetch(bundle.files[path], bundle.read, info.start, size)

    settings = config.get("quantization_config")
    unpacked = _unpacked(tensors, settings if isinstance(settings, dict) else {}, whole)
    plain = {
        name: info.shape
        for name, info in tensors.items()
        if not AUXILIARY.fullmatch(name)
        and not name.endswith(("_blocks", "_scales"))
        and not (info.dtype in PACKED and len(info.shape) > 1)
    }
    return plain | unpacked


def _unpacked(
    tensors: Mapping[str, TensorInfo], settings: Mapping[str, Any], whole: Whole
) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for name in tensors:
        for recipe in (_bitsandbytes, _rows, _gptq_or_awq, _compressed, _mxfp4):
            try:
                unpacked = recipe(name, tensors, settings, whole)
            except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError, RegistryError):
                continue  # its parts do not fit together: nothing is known of it
            if unpacked is not None:
                shapes[unpacked[0]] = unpacked[1]
    return shapes


def _matrix(name: str, rows: int, columns: int) -> tuple[str, Shape]:
    if not (0 < rows < 1 << 31 and 0 < columns < 1 << 31):
        raise ValueError("no shape")
    return name, (rows, columns)


def _bitsandbytes(
    name: str, tensors: Mapping[str, TensorInfo], settings: Mapping[str, Any], whole: Whole
) -> tuple[str, Shape] | None:
    """4-bit codes, two a byte, whose quant_state says the shape."""
    if (match := STATE.fullmatch(name)) is None:
        return None
    codes = tensors[match[1]]
    rows, columns = loads(whole(name))["shape"]
    size = codes.end - codes.start
    if type(rows) is not int or type(columns) is not int or size != (rows * columns + 1) // 2:
        raise ValueError("no shape")
    return _matrix(match[1], rows, columns)


def _rows(
    name: str, tensors: Mapping[str, TensorInfo], settings: Mapping[str, Any], whole: Whole
) -> tuple[str, Shape] | None:
    """One code a number: LLM.int8(), and int8 of compressed-tensors."""
    info, stem = tensors[name], name.removesuffix(".weight")
    if info.dtype != "I8" or stem == name or len(info.shape) != 2:
        return None
    scaled = f"{stem}.SCB" in tensors or f"{stem}.weight_scale" in tensors
    return (name, info.shape) if scaled else None


def _gptq_or_awq(
    name: str, tensors: Mapping[str, TensorInfo], settings: Mapping[str, Any], whole: Whole
) -> tuple[str, Shape] | None:
    """32-bit words: along the inputs for GPTQ, along the outputs for AWQ."""
    stem = name.removesuffix(".qweight")
    if stem == name:
        return None
    words, bits = tensors[name], settings.get("bits", settings.get("w_bit"))
    if words.dtype != "I32" or type(bits) is not int or bits not in (2, 3, 4, 8):
        raise ValueError("not known")
    first, second = words.shape
    outputs = tensors[f"{stem}.scales"].shape[-1]
    if settings.get("quant_method") == "awq":
        gemv = str(settings.get("version", "gemm")).lower().startswith("gemv")
        rows, columns = (first, second * 32 // bits) if gemv else (second * 32 // bits, first)
        if not gemv and rows != outputs:
            raise ValueError("no shape")
        return _matrix(f"{stem}.weight", rows, columns)
    order = tensors.get(f"{stem}.g_idx")
    columns = first * 32 // bits
    if second != outputs or (order is not None and order.shape not in ((columns,), (0,))):
        raise ValueError("no shape")
    return _matrix(f"{stem}.weight", second, columns)


def _compressed(
    name: str, tensors: Mapping[str, TensorInfo], settings: Mapping[str, Any], whole: Whole
) -> tuple[str, Shape] | None:
    """compressed-tensors: a packed matrix with its shape beside it, or two 4-bit floats a byte."""
    stem = name.removesuffix(".weight_packed")
    if stem == name:
        return None
    packed = tensors[name]
    if (shape := tensors.get(f"{stem}.weight_shape")) is not None:
        kind = {"I64": "<i8", "I32": "<i4"}[shape.dtype]
        rows, columns = (int(size) for size in np.frombuffer(whole(shape.name), kind))
        if packed.shape[0] != rows or packed.shape[1] > columns:
            raise ValueError("no shape")
        return _matrix(f"{stem}.weight", rows, columns)
    if packed.dtype != "U8":
        raise ValueError("not known")
    return _matrix(f"{stem}.weight", packed.shape[0], packed.shape[1] * 2)


def _mxfp4(
    name: str, tensors: Mapping[str, TensorInfo], settings: Mapping[str, Any], whole: Whole
) -> tuple[str, Shape] | None:
    """gpt-oss: blocks of 32 numbers in 16 bytes, (experts, out, blocks, 16), loaded transposed."""
    stem = name.removesuffix("_blocks")
    if stem == name or f"{stem}_scales" not in tensors:
        return None
    experts, rows, blocks, size = tensors[name].shape
    if size != 16:
        raise ValueError("not known")
    return stem, (experts, blocks * 32, rows)

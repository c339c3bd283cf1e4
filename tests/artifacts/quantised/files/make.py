"""Make what real libraries write for a small random base: bitsandbytes 0.50.2 and
compressed-tensors 0.20.0 on a CPU.

Neither is a dependency; the few kilobytes they wrote lie beside this file. To make them again, in
an environment with both and torch: `python tests/artifacts/quantised/files/make.py`.
"""

from __future__ import annotations

from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

HERE = Path(__file__).parent
MATRIX = "model.layers.0.self_attn.q_proj"


def compressed(
    weight: torch.Tensor, kind: str, bits: int, group: int | None
) -> dict[str, torch.Tensor]:
    strategy = "group" if group else "channel"
    args = QuantizationArgs(
        num_bits=bits, type=kind, symmetric=True, strategy=strategy, group_size=group
    )
    parts = weight.reshape(weight.shape[0], -1, group or weight.shape[1])
    scale, zero = calculate_qparams(parts.amin(2), parts.amax(2), args)
    dtype = torch.float8_e4m3fn if kind == "float" else torch.int8
    codes = quantize(weight, scale, zero, args, dtype=dtype)
    if bits == 4:
        return {
            f"{MATRIX}.weight_packed": pack_to_int32(codes, 4),
            f"{MATRIX}.weight_scale": scale,
            f"{MATRIX}.weight_shape": torch.tensor(weight.shape),
        }
    return {f"{MATRIX}.weight": codes, f"{MATRIX}.weight_scale": scale}


def main() -> None:
    torch.manual_seed(7)
    weight, norm = torch.randn(24, 64) * 0.02, torch.ones(8)
    weight[3] = 0  # a row of nothing has a scale of nothing
    save_file({f"{MATRIX}.weight": weight, "model.norm.weight": norm}, HERE / "base.safetensors")
    kept = {"model.norm.weight": norm}
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            codes, state = bnb.quantize_4bit(
                weight.bfloat16(), blocksize=64, compress_statistics=nested, quant_type=kind
            )
            parts = {
                f"{MATRIX}.weight.{part}": held for part, held in state.as_dict(packed=True).items()
            }
            name = f"bitsandbytes-{kind}{'-nested' if nested else ''}"
            save_file({f"{MATRIX}.weight": codes, **parts, **kept}, HERE / f"{name}.safetensors")
    codes, scale, _ = bnb.int8_vectorwise_quant(weight.half())
    save_file(
        {
            f"{MATRIX}.weight": codes,
            f"{MATRIX}.SCB": scale,
            f"{MATRIX}.weight_format": torch.tensor(0, dtype=torch.uint8),
            **kept,
        },
        HERE / "bitsandbytes-int8.safetensors",
    )
    for name, kind, bits, group in (
        ("fp8", "float", 8, None),
        ("int8", "int", 8, None),
        ("packed-int4", "int", 4, 16),
    ):
        save_file({**compressed(weight, kind, bits, group), **kept}, HERE / f"{name}.safetensors")
    for dtype in (torch.bfloat16, torch.float16):
        save_file(
            {f"{MATRIX}.weight": weight.to(dtype), "model.norm.weight": norm.to(dtype)},
            HERE / f"cast-{str(dtype).removeprefix('torch.')}.safetensors",
        )


if __name__ == "__main__":
    main()

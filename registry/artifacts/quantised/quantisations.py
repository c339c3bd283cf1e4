"""Whether each tensor of a checkpoint is what its recipe makes of the base's tensor.

The quantisation is computed again from the bytes of both. They are read in pieces, so memory does
not grow with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from registry.artifacts.bundles.files import read_bundle
from registry.artifacts.quantised.bitsandbytes import eight_bits, four_bits
from registry.artifacts.quantised.descents import (
    Descent,
    Placed,
    Step,
    TensorVerdict,
    conclude,
    placed,
    plan,
    text_verdicts,
)
from registry.artifacts.quantised.grids import (
    off_e4m3,
    off_integer,
    scaled,
    stored_codes,
    unpacked_codes,
)
from registry.artifacts.quantised.number_types import FP4, NF4, cast
from registry.artifacts.quantised.pairs import PIECE, Pair, Wrong, place
from registry.artifacts.weights.tensors import File, Read
from registry.errors import Invalid, RegistryError


def descend(child: Sequence[File], base: Sequence[File], read: Read) -> Descent:
    """The verdict on a checkpoint that claims to be a quantisation of a base.

    Both must be sound bundles. Raises Invalid (`bundle-unsound`) when one is not, and what `read`
    raises when bytes are missing.
    """
    checkpoint, original = read_bundle("checkpoint", child, read), read_bundle("base", base, read)
    if defects := [*checkpoint.defects, *original.defects]:
        raise Invalid("bundle-unsound", f"{defects[0].file}: {defects[0].detail}")
    base_tensors = placed(original)
    planned = plan(base_tensors, placed(checkpoint))
    verdicts = [*text_verdicts(original, checkpoint), *planned.verdicts]
    verdicts += [judge(step, base_tensors[step.name], read) for step in planned.steps]
    return conclude(verdicts)


def judge(step: Step, base: Placed, read: Read) -> TensorVerdict:
    """Check one tensor by its recipe.

    Raises what `read` raises when bytes are missing.
    """
    pair = Pair(base, step.parts, read)
    try:
        wrong = RECIPES[step.recipe](pair)
    except RegistryError as error:
        if error.kind in ("bytes-missing", "bytes-short"):
            raise
        wrong = ("false", error.detail)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        wrong = ("false", f"its parts do not fit together ({str(error)[:100]})")
    if wrong is None:
        return TensorVerdict(step.name, step.recipe, "verified")
    outcome, detail = wrong
    return TensorVerdict(
        step.name, step.recipe, "false" if outcome == "false" else "unchecked", detail
    )


def _equal(pair: Pair) -> Wrong:
    for start in range(0, pair.base.info.elements, PIECE):
        received, expected = (
            pair.elements(tensor, start, PIECE) for tensor in (pair.parts["weight"], pair.base)
        )
        differing = np.flatnonzero(received.view(np.uint8) != expected.view(np.uint8))
        if len(differing):
            index = start + int(differing[0]) * len(received) // len(received.view(np.uint8))
            return "false", f"{place(pair.base.info, index)} is not the base's"
    return None


def _cast(pair: Pair) -> Wrong:
    dtype = pair.parts["weight"].info.dtype
    for start in range(0, pair.base.info.elements, PIECE):
        received = pair.elements(pair.parts["weight"], start, PIECE)
        expected = pair.elements(pair.base, start, PIECE)
        differing = np.flatnonzero(received != cast(expected, dtype))
        if len(differing):
            element = place(pair.base.info, start + int(differing[0]))
            return "false", f"{element} is not the base's, rounded to {dtype}"
    return None


RECIPES: dict[str, Callable[[Pair], Wrong]] = {
    "equal": _equal,
    "cast": _cast,
    "bitsandbytes-nf4": four_bits(NF4),
    "bitsandbytes-fp4": four_bits(FP4),
    "bitsandbytes-int8": eight_bits,
    "fp8": scaled(448.0, off_e4m3, stored_codes),
    "int8": scaled(127.5, off_integer, stored_codes),
    "packed-int4": scaled(7.5, off_integer, unpacked_codes),
}

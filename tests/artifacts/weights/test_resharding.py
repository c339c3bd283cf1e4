"""One identity for the same weights, however they are cut into files: through files safetensors
itself wrote.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from registry.artifacts.weights.headers import MAX_HEADER_BYTES
from tests.artifacts.bundle_files import CONFIG, Files, look

Arrays = dict[str, np.ndarray[Any, Any]]
NAMES = st.text(st.sampled_from("abz019._-"), min_size=1, max_size=12)
KINDS = st.sampled_from([np.float32, np.float16, np.int8, np.uint8, np.int64, np.bool_])


@st.composite
def arrays(draw: st.DrawFn) -> Arrays:
    """Small tensors of many types; a value is a small whole number, so none is NaN by chance."""
    made: Arrays = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=6, unique=True)):
        shape = draw(st.lists(st.integers(1, 4), max_size=3))
        start = draw(st.integers(0, 90))
        made[name] = (
            (np.arange(start, start + int(np.prod(shape))) % 100).reshape(shape).astype(draw(KINDS))
        )
    return made


NUMBERED = (
    "model-{:05}-of-{:05}.safetensors",
    "model-{:05}-of-{:06}.safetensors",
    "model.safetensors-{:05}-of-{:05}.safetensors",
)


def files_of(
    shards: list[Arrays], metadata: dict[str, str], pretty: int | None, numbered: str = NUMBERED[0]
) -> Files:
    """A checkpoint's files, the index among them where there is more than one shard."""
    config = {"config.json": json.dumps(CONFIG, indent=pretty).encode()}
    if len(shards) == 1:
        return {**config, "model.safetensors": save(shards[0], metadata=metadata)}
    names = [numbered.format(number, len(shards)) for number in range(1, len(shards) + 1)]
    index = {
        "weight_map": {
            name: file for file, held in zip(names, shards, strict=True) for name in held
        }
    }
    return {
        **config,
        "model.safetensors.index.json": json.dumps(index).encode(),
        **{file: save(held, metadata=metadata) for file, held in zip(names, shards, strict=True)},
    }


@settings(deadline=None)
@given(arrays(), st.data())
def test_shards_names_order_and_metadata_leave_the_root_and_one_bit_does_not(
    whole: Arrays, data: st.DataObject
) -> None:
    single = look("checkpoint", files_of([whole], {"format": "pt"}, None))
    assert single.defects == []
    names = data.draw(st.permutations(sorted(whole)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(names) - 1)))) if len(names) > 1 else []
    shards = [
        {name: whole[name] for name in names[begin:end]}
        for begin, end in zip([0, *cuts], [*cuts, None], strict=True)
    ]
    metadata = data.draw(
        st.dictionaries(st.text("ab", max_size=3), st.text(max_size=5), max_size=2)
    )
    cut = look("checkpoint", files_of(shards, metadata, 2, data.draw(st.sampled_from(NUMBERED))))
    assert cut.defects == []
    assert (cut.tensor_root, cut.base_root) == (single.tensor_root, single.base_root)
    assert cut.manifest_digest != single.manifest_digest

    name = data.draw(st.sampled_from(names))
    raw = bytearray(whole[name].tobytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1  # the lowest bit of a byte: still a number, and of a truth value still one
    flipped = {
        **whole,
        name: np.frombuffer(bytes(raw), whole[name].dtype).reshape(whole[name].shape),
    }
    other = look("checkpoint", files_of([flipped], {"format": "pt"}, None))
    assert other.defects == []
    assert other.tensor_root != single.tensor_root
    assert other.base_root != single.base_root

    renamed = {("renamed" if one == name else one): value for one, value in whole.items()}
    assert look("checkpoint", files_of([renamed], {}, None)).tensor_root != single.tensor_root
    reshaped = {**whole, name: whole[name].reshape(1, -1)}
    if reshaped[name].shape != whole[name].shape:
        assert look("checkpoint", files_of([reshaped], {}, None)).tensor_root != single.tensor_root
    assert len(files_of([whole], {}, None)["model.safetensors"]) < MAX_HEADER_BYTES

"""Quantisations worked out again: what real libraries wrote is verified, and one altered weight is
found and named.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from registry.artifacts.quantised.descents import Descent, Placed, Step
from registry.artifacts.quantised.number_types import E4M3, cast, dynamic_map
from registry.artifacts.quantised.pairs import PIECE
from registry.artifacts.quantised.quantisations import descend, judge
from registry.artifacts.weights.headers import parse_header
from registry.artifacts.weights.tensors import File
from registry.errors import Invalid
from tests.artifacts.bundle_files import CONFIG, Files, declared

FOLDER = Path(__file__).parent / "files"
BASE = (FOLDER / "base.safetensors").read_bytes()
NAMES = sorted(path.stem for path in FOLDER.glob("*.safetensors") if path.stem != "base")
MATRIX = "model.layers.0.self_attn.q_proj"
EXACT = [name for name in NAMES if name.startswith(("bitsandbytes", "cast"))]


def bundle(weights: bytes, **config: Any) -> Files:
    return {"model.safetensors": weights, "config.json": json.dumps(CONFIG | config).encode()}


def verdict(child: Files, base: Files | None = None, asked: list[int] | None = None) -> Descent:
    """What is found; the length of every read goes to `asked`."""
    ours, read_ours = declared(child)
    theirs, read_theirs = declared(base or bundle(BASE))

    def read(sha256: str, start: int, length: int) -> bytes:
        if asked is not None:
            asked.append(length)
        try:
            return read_ours(sha256, start, length)
        except KeyError:
            return read_theirs(sha256, start, length)

    return descend(ours, theirs, read)


def quantised(name: str) -> bytes:
    return (FOLDER / f"{name}.safetensors").read_bytes()


def place(data: bytes, tensor: str) -> tuple[int, int]:
    """Where a tensor's bytes lie in a file."""
    file = File("x", "", len(data))
    [info] = [
        one
        for one in parse_header(file, lambda _, at, n: data[at : at + n]).tensors
        if one.name == tensor
    ]
    return info.start, info.end


def flipped(data: bytes, at: int, bit: int = 6) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def codes(name: str) -> str:
    return f"{MATRIX}.weight_packed" if name == "packed-int4" else f"{MATRIX}.weight"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_real_library_wrote_is_verified(name: str) -> None:
    found = verdict(bundle(quantised(name), quantization_config={"bits": 4}, dtype="bfloat16"))
    assert (found.grade, found.defects, found.unchecked) == ("verified", (), ())
    assert set(found.recipes) - {"equal"} == {
        name.removesuffix("-nested").partition("-bf")[0].partition("-fl")[0]
    }


@pytest.mark.parametrize("name", EXACT)
def test_one_altered_weight_is_found_and_named(name: str) -> None:
    data = quantised(name)
    start, end = place(data, codes(name))
    found = verdict(bundle(flipped(data, start + (end - start) // 2)))
    [defect] = found.defects
    assert (defect.rule, defect.where) == ("descent-false", f"{MATRIX}.weight")
    assert "the element [" in defect.detail


@given(st.data())
def test_no_altered_code_is_ever_verified(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in NAMES if "fp4" not in name]))
    whole = quantised(name)
    start, end = place(whole, codes(name))
    row = (end - start) // 24
    at = data.draw(st.integers(start, end - 1).filter(lambda at: (at - start) // row != 3))
    # The highest bits of what stands there: a code that is off by half a step may be a tie.
    top = (
        7
        if name in ("fp8", "int8", "bitsandbytes-int8")
        or (name.startswith("cast") and (at - start) % 2)
        else 2
    )
    changed = flipped(whole, at, top)
    if name.startswith("cast") and not (at - start) % 2:
        changed = flipped(whole, at, 0)
    found = verdict(bundle(changed))
    assert found.defects or found.grade == "claimed"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("bitsandbytes")])
def test_a_scale_that_is_not_the_base_s_is_found(name: str) -> None:
    data = quantised(name)
    part = f"{MATRIX}.SCB" if name.endswith("int8") else f"{MATRIX}.weight.absmax"
    start, _ = place(data, part)
    found = verdict(bundle(flipped(data, start + (0 if "nested" in name else 2))))
    assert [one.rule for one in found.defects] == ["descent-false"]
    if "nf4" in name or "fp4" in name:
        start, _ = place(data, f"{MATRIX}.weight.quant_map")
        assert verdict(bundle(flipped(data, start + 6))).defects


@pytest.mark.parametrize("name", NAMES)
def test_another_base_of_the_same_shape_is_refused(name: str) -> None:
    start, end = place(BASE, f"{MATRIX}.weight")
    values = np.frombuffer(BASE[start:end], "<f4")
    other = BASE[:start] + np.roll(values, 17).tobytes() + BASE[end:]
    found = verdict(bundle(quantised(name)), bundle(other))
    assert [(one.rule, one.where) for one in found.defects] == [
        ("descent-false", f"{MATRIX}.weight")
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("cast")])
def test_what_is_not_quantised_must_be_the_base_s(name: str) -> None:
    data = quantised(name)
    start, _ = place(data, "model.norm.weight")
    [defect] = verdict(bundle(flipped(data, start + 9))).defects
    assert (defect.where, "the element [2]" in defect.detail) == ("model.norm.weight", True)


def test_texts_must_agree_too() -> None:
    found = verdict(bundle(quantised("fp8"), rms_norm_eps=1.0))
    assert [(defect.file, defect.where) for defect in found.defects] == [
        ("config.json", "config.json rms_norm_eps")
    ]
    assert verdict(bundle(quantised("fp8"), rope_theta=5)).grade == "claimed"
    base = bundle(BASE) | {"tokenizer.json": b'{"model":{"vocab":{}}}', "chat_template.jinja": b"a"}
    assert verdict(bundle(quantised("fp8")), base).grade == "verified"
    more = verdict(bundle(quantised("fp8")) | {"tokenizer_config.json": b'{"eos_token":"a"}'}, base)
    assert (more.grade, more.unchecked) == (
        "claimed",
        ("tokenizer_config.json: the base has no such file",),
    )
    told = verdict(
        bundle(quantised("fp8")) | {"tokenizer.json": b"{}", "chat_template.jinja": b"b"}, base
    )
    assert sorted(defect.where for defect in told.defects) == ["chat template", "tokenizer.json"]


def test_what_cannot_be_worked_out_stays_a_claim() -> None:
    parts = {
        "qweight": np.ones((8, 24), np.int32),
        "qzeros": np.ones((1, 3), np.int32),
        "scales": np.ones((1, 24), np.float16),
        "g_idx": np.zeros(64, np.int32),
    }
    held = {f"{MATRIX}.{part}": value for part, value in parts.items()}
    found = verdict(bundle(save({**held, "model.norm.weight": np.ones(8, np.float32)})))
    assert (found.grade, found.defects, found.recipes) == ("claimed", (), {"equal": 1})
    assert f"{MATRIX}.weight" in found.unchecked[0]
    stray = verdict(
        bundle(
            save(
                {
                    **held,
                    "other.weight": np.ones(8, np.float32),
                    "model.norm.weight": np.ones(8, np.float32),
                }
            )
        )
    )
    assert [(one.where, one.rule) for one in stray.defects] == [("other.weight", "descent-false")]
    facts = found.facts("acme/tiny@v1", "sha256:b")
    assert (facts["grade"], facts["unchecked_count"]) == ("claimed", 1)


def test_tables_are_those_of_the_papers() -> None:
    assert len(dynamic_map()) == 256
    assert dynamic_map()[[0, -1]] == pytest.approx([-0.992969, 1], abs=1e-6)
    assert np.nanmax(E4M3) == 448
    assert E4M3[[0x38, 0x01, 0xB8]].tolist() == [1.0, 2.0**-9, -1.0]
    assert np.isnan(E4M3[[0x7F, 0xFF]]).all()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_bfloat16_is_rounded_to_the_nearest_even(values: list[float]) -> None:
    given_ = np.array(values, np.float32)
    bits = given_.view(np.uint32).astype(np.int64)
    low, high = bits & 0xFFFF, bits >> 16
    high += (low > 0x8000) | ((low == 0x8000) & (high & 1 == 1))
    assert (cast(given_, "bfloat16").view(np.uint32) == (high << 16).astype(np.uint32)).all()


def test_a_tensor_is_read_once_and_in_pieces(tmp_path: Path) -> None:
    values = np.arange(8 << 20, dtype=np.float32).reshape(2048, 4096)
    files = {
        "a": save({"m.weight": values}),
        "b": save({"m.weight": cast(values, "F16").astype(np.float16)}),
    }
    placed = {}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        file = File(name, name, len(data))
        [info] = parse_header(file, lambda sha, at, n: files[sha][at : at + n]).tensors
        placed[name] = Placed(file, info)

    asked: list[int] = []

    def read(sha256: str, start: int, length: int) -> bytes:
        asked.append(length)
        with (tmp_path / sha256).open("rb") as file:
            file.seek(start)
            return file.read(length)

    found = judge(Step("m.weight", "cast", {"weight": placed["b"]}), placed["a"], read)
    assert found.outcome == "verified"
    assert (sum(asked), max(asked)) == (values.size * (4 + 2), 4 * PIECE)


@pytest.mark.parametrize(
    ("weight", "scale"),
    [
        ("weight", ("weight_scale", (1, 4000))),
        ("weight", ("weight_scale", (65535, 1))),
        ("weight", ("weight_scale_inv", (65536, 64))),
        ("weight_packed", ("weight_scale", (65536, 1))),
    ],
)
def test_parts_of_another_size_are_refused_before_they_are_spread(
    weight: str, scale: tuple[str, tuple[int, int]]
) -> None:
    """A few kilobytes of scales must not ask for gigabytes: a grid finer than its matrix is
    none.
    """
    tall = np.ones((65536, 64 if scale[0] == "weight_scale_inv" else 1), np.float32)
    parts = {f"a.{scale[0]}": np.ones(scale[1], np.float32)}
    if weight == "weight":
        parts["a.weight"] = np.ones(tall.shape, np.int8)
    else:
        parts |= {
            "a.weight_packed": np.ones((1, 1 << 20), np.int32),
            "a.weight_shape": np.array(tall.shape, np.int64),
        }
    base, child = bundle(save({"a.weight": tall})), bundle(save(parts))
    asked: list[int] = []
    found = verdict(child, base, asked)
    assert ["do not fit together" in one.detail for one in found.defects] == [True]
    assert sum(asked) < sum(map(len, child.values())) + sum(map(len, base.values()))


def test_more_scales_than_are_held_are_unchecked_and_not_false() -> None:
    """The largest models in the finest groups are genuine; nobody says that they are not their
    base's.
    """
    values = np.ones((2049, 2048), np.float16)
    found = verdict(
        bundle(save({"a.weight": np.ones(values.shape, np.int8), "a.weight_scale": values})),
        bundle(save({"a.weight": values})),
    )
    assert (found.defects, found.grade) == ((), "claimed")


def test_bytes_that_are_gone_are_no_verdict() -> None:
    listed, _ = declared(bundle(BASE))

    def read(sha256: str, start: int, length: int) -> bytes:
        raise KeyError(sha256)

    with pytest.raises(Invalid, match="the store holds no bytes"):
        descend(listed, listed, read)

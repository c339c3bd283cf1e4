"""Data sets row by row: defects by line, the record root, repeats, suites and contamination."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from registry.artifacts.datasets import rows as datasets
from registry.artifacts.datasets.rows import InspectedDataset, Item, Row
from registry.artifacts.weights.tensors import File
from registry.documents.canonical import sha256_hex
from registry.errors import Defect, Invalid, Unverified
from registry.proof.merkle import Frontier

META = {
    "source": "s",
    "licence": "CC-BY-4.0",
    "legal_basis": "contract",
    "personal_data": "none",
    "retention": "1y",
}


def declared(content: bytes) -> tuple[File, Callable[[str, int, int], bytes]]:
    file = File("data.jsonl", sha256_hex(content), len(content))
    return file, lambda digest, start, length: {file.sha256: content}[digest][
        start : start + length
    ]


def look(content: bytes, meta: dict[str, Any] = META) -> InspectedDataset:
    file, read = declared(content)
    return datasets.inspect(file, read, meta)


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def row(prompt: str, completion: str = "yes", **other: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **other}


def test_a_sound_data_set() -> None:
    rows = [row("a"), row("b", split="test", weight=0.5), row("ü", "nö", split="dev", key="x")]
    found = look(lines(*rows))
    assert (found.defects, found.wrong, found.findings) == ([], 0, [])
    assert found.rows == 3
    assert found.splits == {"dev": 1, "test": 1, "train": 1}
    assert found.record_root == Frontier(rfc8785.dumps(one) for one in rows).text()


def test_the_root_sees_order_and_every_field_but_not_the_writing() -> None:
    root = look(lines(row("a"), row("b"))).record_root
    assert (
        look(
            b'{ "completion":"yes", "prompt":"\\u0061"}\n{"prompt":"b","completion":"yes"}'
        ).record_root
        == root
    )
    for other in (
        lines(row("b"), row("a")),
        lines(row("a"), row("b", note=1)),
        lines(row("a"), row("b"), row("b")),
    ):
        assert look(other).record_root != root


BAD: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{nope", "bad-json"),
    "not UTF-8": (b'{"prompt":"\xff","completion":"a"}', "bad-json"),
    "key twice": (b'{"prompt":"a","prompt":"b","completion":"c"}', "bad-json"),
    "NaN": (b'{"prompt":"a","completion":"b","x":NaN}', "bad-json"),
    "deep": (b'{"prompt":"a","completion":"b","x":' + b"[" * 40 + b"]" * 40 + b"}", "bad-json"),
    "large integer": (b'{"prompt":"a","completion":"b","x":9007199254740993}', "not-canonical"),
    "half a character": (b'{"prompt":"\\ud800","completion":"b"}', "not-canonical"),
    "a list": (b'["a","b"]', "row-object"),
    "a text": (b'"a"', "row-object"),
    "no prompt": (b'{"completion":"b"}', "row-text"),
    "no completion": (b'{"prompt":"b"}', "row-text"),
    "blank prompt": (b'{"prompt":" ","completion":"b"}', "row-text"),
    "number": (b'{"prompt":1,"completion":"b"}', "row-text"),
    "split of none": (b'{"prompt":"a","completion":"b","split":null}', "row-split"),
    "split with a path": (b'{"prompt":"a","completion":"b","split":"../x"}', "row-split"),
    "empty": (b"", "line-empty"),
    "blank": (b"  ", "line-empty"),
    "too long": (b'{"prompt":"' + b"a" * (1 << 20) + b'","completion":"b"}', "line-too-long"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_line_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, rule = BAD[name]
    good = json.dumps(row("fine")).encode()
    found = look(good + b"\n" + bad + b"\n" + good + b"\n")
    assert [(d.where, d.rule) for d in found.defects] == [("line 2", rule)]
    assert (found.rows, found.wrong, found.record_root) == (2, 1, None)
    assert found.defects[0].fix


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_pieces_may_be_cut_anywhere(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content = lines(row("ä", "ö"), row("b", split="test"))[:-1]
    whole = look(content)
    monkeypatch.setattr("registry.artifacts.weights.tensors.CHUNK", chunk)
    assert look(content) == whole
    monkeypatch.setattr(datasets, "MAX_LINE_BYTES", 30)
    long = lines(row("x" * 100), row("b", "c"), row("y" * 31))
    assert [d.where for d in look(long).defects] == ["line 1", "line 2", "line 3"]
    monkeypatch.setattr(datasets, "MAX_LINE_BYTES", 40)
    assert [d.where for d in look(long).defects] == ["line 1", "line 3"]


def test_at_most_fifty_defects_are_listed_and_the_rest_counted() -> None:
    found = look(b"x\n" * 75 + lines(row("a")))
    assert (len(found.defects), found.wrong, found.rows) == (51, 75, 1)
    assert found.defects[-1].rule == "more-defects"
    assert found.defects[-1].detail.startswith("25 ")
    assert len(look(b"x\n" * 50).defects) == 50


def test_no_rows_and_no_bytes_are_defects() -> None:
    assert [d.rule for d in look(b"").defects] == ["dataset-empty"]
    file, read = declared(lines(row("a")))
    for wrong, rule in (
        (File("d", "0" * 64, 4), "bytes-missing"),
        (File("d", file.sha256, file.size + 1), "bytes-short"),
        (File("d", file.sha256, file.size - 1), "bytes-more"),
    ):
        found = datasets.inspect(wrong, read, META)
        assert [d.rule for d in found.defects] == [rule]
        assert found.record_root is None


def test_repeats_and_overlap_are_counted_on_normalised_texts() -> None:
    found = look(
        lines(
            row("What is  this?", "A"),
            row("what is this?", "a"),
            row("what is this?", "b"),
            row("WHAT IS\nTHIS?", "A", split="test"),
            row("other", split="test"),
            row("other", split="test"),
            row("ﬁne", split="dev"),
            row("late", split="dev"),
            row("FINE"),
            row("late"),
        )
    )
    assert (
        found.duplicates == 2
    )  # line 2 repeats 1; the second "other"; another answer is no repeat
    assert found.overlap == 3  # one of test, two of dev


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A  b\tc\n", "a b c"),
        ("ﬁn", "FIN"),
        ("Straße", "STRASSE"),
        ("ＡＢＣ", "abc"),
        ("e\u0301", "é"),
        ("a\xa0b", "a b"),
        ("re\u00adtail\u200b", "retail"),
        ("e\u200d\u0301\ufeff", "é"),
    ],
)
def test_texts_that_read_the_same(one: str, other: str) -> None:
    assert datasets.normalise(one) == datasets.normalise(other)


@given(st.text())
def test_normalising_again_changes_nothing(text: str) -> None:
    assert datasets.normalise(datasets.normalise(text)) == datasets.normalise(text)


@pytest.mark.parametrize("field", META)
def test_missing_descriptions_are_findings(field: str) -> None:
    found = look(lines(row("a")), {**META, field: "  "})
    assert [finding.field for finding in found.findings] == [field]
    assert found.defects == []
    assert found.record_root


@pytest.mark.parametrize(("value", "shown"), [(1e4, "10000.0"), (False, "false"), (12, "12")])
def test_a_number_where_a_text_belongs_is_a_finding(value: Any, shown: str) -> None:
    (finding,) = look(lines(row("a")), META | {"source": value}).findings
    assert finding.detail == f"source is {shown}, not a text"
    assert "in quotes" in finding.fix


def test_a_class_of_personal_data_that_does_not_exist_is_a_finding() -> None:
    (finding,) = look(lines(row("a")), META | {"personal_data": "some"}).findings
    assert finding.field == "personal_data"
    assert "pseudonymous" in finding.fix


def rows_of(*given_rows: dict[str, Any]) -> list[Row]:
    file, read = declared(lines(*given_rows))
    return list(datasets.sound_rows(file, read))


def test_sound_rows_refuse_what_is_not() -> None:
    file, read = declared(lines(row("a")) + b"x\n")
    assert [type(one) for one in datasets.rows(file, read)] == [Row, Defect]
    with pytest.raises(Unverified, match="line 2"):
        list(datasets.sound_rows(file, read))


def test_items_of_a_suite() -> None:
    items = datasets.suite_items(
        rows_of(row("t"), row("ü?", "nö", split="test"), *[row("q", "a", split="test")] * 2), "test"
    )
    identity = hashlib.sha256('{"prompt":"ü?"}'.encode()).hexdigest()[:16]
    assert items[0] == Item(identity, "ü?", "nö")
    assert [item.prompt for item in items] == ["ü?", "q"]
    data = datasets.encode_items(items)
    assert data == b"".join(
        rfc8785.dumps({"id": item.id, "prompt": item.prompt, "expected": item.expected}) + b"\n"
        for item in items
    )
    assert datasets.decode_items(data) == items
    for broken in (data.replace(b"q", b"z"), data + b"\n", b"{}\n", b'{"id":1}', data[:-9]):
        with pytest.raises(Unverified):
            datasets.decode_items(broken)


def test_suites_that_cannot_be() -> None:
    with pytest.raises(Invalid) as empty:
        datasets.suite_items(rows_of(row("a"), row("b", split="dev")), "test")
    assert empty.value.kind == "split-empty"
    assert "dev, train" in empty.value.fix
    with pytest.raises(Invalid) as split:
        datasets.suite_items(
            rows_of(row("a", "b", split="test"), row("a", "c", split="test")), "test"
        )
    assert (split.value.kind, split.value.facts) == ("item-contradicts", {"line": 2})


def trained(prompt: str, system: str | None = None) -> Row:
    return Row(1, prompt, "x", "train", b"", system)


def test_overlap_counts_items_that_were_trained_on() -> None:
    texts = ["Who?", "What  now?", "what now?", "Never", "Where"]
    items = [Item(datasets.item_id(text), text, "x") for text in texts]
    train = ["WHAT NOW?", "where", "where", "is it where it was?", "else"]
    overlap = datasets.overlap(map(trained, train), items)
    assert (overlap.items, overlap.train_rows, overlap.exact) == (5, 5, 3)
    assert overlap.examples == (items[1].id, items[2].id, items[4].id)
    assert datasets.overlap([], items) == datasets.Overlap(5, 0, 0, ())
    many = [Item(str(number), str(number), "x") for number in range(30)]
    assert len(datasets.overlap((trained(item.prompt) for item in many), many).examples) == 20


@pytest.mark.parametrize(
    ("row", "item", "suite"),
    [
        (("Who is it?", "Be brief."), ("Be brief.\nWho is it?", None), None),
        (("Be brief.\nWho is it?", None), ("Who is it?", "Be brief."), None),
        (("be  brief. who is it?", None), ("Who is it?", None), "Be brief."),
        (("is it?", "Be brief.\nWho"), ("Who is it?", "Be brief."), None),
        (("Who is it?", "Be long."), ("Who is it?", "Be brief."), None),
        (("Who is it?", " "), ("Who is it?", None), None),
        (("Wh\u200bo is\u00ad it?", None), ("Who is it?", None), None),
    ],
)
def test_the_system_prompt_is_part_of_what_was_trained_on(
    row: tuple[str, str | None], item: tuple[str, str | None], suite: str | None
) -> None:
    items = [Item("1", item[0], "x", system=item[1]), Item("2", "Never", "x", system=item[1])]
    overlap = datasets.overlap([trained(*row)], items, suite)
    assert (overlap.exact, overlap.examples) == (1, ("1",))


@pytest.mark.parametrize(
    "column",
    [
        {"instruction": "Answer in Latin."},
        {"messages": [{"role": "user", "content": "p"}]},
        {"conversations": [{"from": "human", "value": "p"}]},
        {"history": [["a", "b"]]},
        {"input": "a letter"},
        {"tools": [{"name": "search"}]},
        {"images": ["a.png"]},
        {"rejected": "c"},
    ],
)
def test_a_column_that_nobody_would_read_is_named(column: dict[str, Any]) -> None:
    [defect] = look(lines(row("p", **column))).defects
    assert (defect.rule, defect.where) == ("row-column", "line 1")
    assert repr(next(iter(column))) in defect.detail


def test_columns_that_mean_nothing_here_or_hold_nothing_are_kept() -> None:
    plain = row("p", id=7, topic="loans", history=[], input="")
    assert not look(lines(plain, {**plain, "tools": None})).defects


def test_a_system_prompt_is_a_text_and_known() -> None:
    assert [each.system for each in rows_of(row("p", system="Be brief."), row("q"))] == [
        "Be brief.",
        None,
    ]
    [defect] = look(lines(row("p", system=["Be brief."]))).defects
    assert (defect.rule, defect.detail) == ("row-text", "system is not a text")

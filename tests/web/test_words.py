"""The words, numbers and times people read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from registry.db.reviews import STATES as REVIEW_STATES
from registry.db.training_runs import STATES as RUN_STATES
from registry.errors import Invalid
from registry.rules.gates import SEVERITY
from registry.rules.reviews import VERDICTS
from registry.rules.rollouts import State
from registry.rules.versions import State as VersionState
from registry.web import words

NOW = datetime(2026, 11, 22, 19, 31, 4, tzinfo=UTC)


def test_every_state_the_registry_knows_has_a_look_of_its_own() -> None:
    known = {*REVIEW_STATES, *State, *RUN_STATES, *SEVERITY, *VERDICTS, "done", "refused"}
    known |= {*VersionState, "claimed", "observed", "verified"}
    assert known - set(words.LOOKS) == set()
    assert len({(look.glyph, look.word) for look in words.LOOKS.values()}) > 20


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        (NOW, "just now"),
        (NOW - timedelta(seconds=45), "45 s ago"),
        (NOW - timedelta(minutes=12), "12 min ago"),
        (NOW - timedelta(hours=3), "3 h ago"),
        (NOW - timedelta(days=9), "9 d ago"),
        (NOW + timedelta(days=180), "in 180 d"),
    ],
)
def test_moments_are_told_in_one_unit(moment: datetime, wanted: str) -> None:
    assert words.ago(moment, NOW) == wanted


def test_numbers_are_grouped_signed_and_bear_a_true_minus() -> None:
    assert words.number(18204) == "18,204"
    assert words.points(0.531) == "+53.1 pt"
    assert words.points(-0.062) == "−6.2 pt"
    assert words.percent(0.547) == "54.7%"
    assert (words.share(500), words.share(250), words.share(10_000)) == ("5%", "2.5%", "100%")
    assert (words.size(812), words.size(9_771_320)) == ("812 B", "9.8 MB")
    assert (words.measured(214.2345), words.measured(14_223)) == ("214.2", "14,223")


def test_digests_are_cut_and_references_are_not() -> None:
    assert words.short("sha256:" + "9f" * 32) == "sha256:9f9f9f…9f9f"
    assert words.short("legal/licence-notices@v3") == "legal/licence-notices@v3"


def test_an_arm_says_whether_the_base_serves() -> None:
    assert words.arm("legal/notices@v3", "legal/notices") == "v3"
    assert words.arm("llm/smollm2@v1", "legal/notices") == "base smollm2@v1"
    assert words.arm(None, "legal/notices") == "nothing"


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "", None]
)
def test_a_reported_address_is_linked_only_over_http(address: str | None) -> None:
    assert words.link(address) == ""
    assert words.link("http://127.0.0.1:5000/#/x") == "http://127.0.0.1:5000/#/x"


def test_a_typed_moment_is_utc_unless_it_says_otherwise() -> None:
    assert words.moment(" 2026-11-22T19:31:04 ") == NOW
    assert words.moment("2026-11-22T20:31:04+01:00") == NOW
    with pytest.raises(Invalid) as caught:
        words.moment("yesterday")
    assert caught.value.kind == "bad-moment"

"""References: what is one, what is none, and that printing and reading agree."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

from registry.errors import Invalid
from registry.rules.refs import (
    ENVIRONMENTS,
    NAME,
    PINNED,
    RESERVED_TEAMS,
    Ref,
    check_channel,
    check_environment,
    check_new_line,
    parse_line,
    parse_ref,
    read_repository,
    repository,
)

HEX = "0123456789abcdef" * 4

ACCEPTED: dict[str, Ref] = {
    "legal/notices": Ref("legal", "notices"),
    "a/b": Ref("a", "b"),
    "0/9": Ref("0", "9"),
    "legal/a.b-c_d": Ref("legal", "a.b-c_d"),
    "legal/v3": Ref("legal", "v3"),
    "legal/notices@v1": Ref("legal", "notices", number=1),
    "legal/notices@v999999999": Ref("legal", "notices", number=999_999_999),
    "legal/notices@production": Ref("legal", "notices", channel="production"),
    "legal/notices@vip": Ref("legal", "notices", channel="vip"),
    "legal/notices@7": Ref("legal", "notices", channel="7"),
    f"legal/notices@sha256:{HEX}": Ref("legal", "notices", digest=HEX),
    f"sha256:{HEX}": Ref(digest=HEX),
    "sha256:01234567": Ref(digest="01234567"),
    f"{'a' * 64}/{'b' * 64}": Ref("a" * 64, "b" * 64),
}

REFUSED = [
    "",
    "legal",
    "/notices",
    "legal/",
    "/",
    "@v1",
    "legal/notices@",
    "legal/notices@@v1",
    "legal/notices@v1@v2",
    "Legal/notices",
    "legal/Notices",
    "legal/no tices",
    " legal/notices",
    "legal/notices ",
    "legal/notices\n",
    "legal/notices@v1\n",
    "a/b/c",
    "-a/b",
    "a/-b",
    "a-/b",
    "a/b.",
    ".a/b",
    "a/..",
    "../b",
    "_a/b",
    "a/b_",
    f"{'a' * 65}/b",
    f"a/{'b' * 65}",
    "ä/b",
    "a/ü",
    "a\0/b",
    "a/b@V1",
    "a/b@sha256:",
    "a/b@sha256:0123456",
    f"a/b@sha256:{HEX}0",
    "sha256:0123456",
    f"sha256:{HEX}0",
    "sha256:ABCDEF01",
    "sha256:ghijklmn",
    "md5:01234567",
    "a/b@pro duction",
    "a/b@-x",
    "a/b@x-",
    "a%2fb",
    "a\\b",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted(text: str) -> None:
    assert parse_ref(text) == ACCEPTED[text]
    assert str(ACCEPTED[text]) == text


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    with pytest.raises(Invalid) as error:
        parse_ref(text)
    assert error.value.kind == "bad-reference"
    assert "team/name" in error.value.fix


def test_the_refusal_does_not_echo_without_end() -> None:
    with pytest.raises(Invalid) as error:
        parse_ref("x" * 100_000)
    assert len(error.value.detail) < 400


names = st.from_regex(NAME, fullmatch=True)
digests = st.text("0123456789abcdef", min_size=8, max_size=64)
refs = st.one_of(
    st.builds(Ref, team=names, name=names),
    st.builds(Ref, team=names, name=names, number=st.integers(1, 999_999_999)),
    st.builds(Ref, team=names, name=names, digest=digests),
    st.builds(Ref, digest=digests),
    st.builds(
        Ref,
        team=names,
        name=names,
        channel=names.filter(lambda name: parse_ref(f"a/b@{name}").number is None),
    ),
)


@given(refs)
def test_what_is_printed_reads_back(ref: Ref) -> None:
    assert parse_ref(str(ref)) == ref


@given(st.text() | st.from_regex(r"[a-z0-9./@:v_-]{1,30}", fullmatch=True))
def test_any_text_reads_back_or_is_refused_by_name(text: str) -> None:
    try:
        ref = parse_ref(text)
    except Invalid:
        return
    assert str(ref) == text


def test_a_line_is_team_and_name_only() -> None:
    assert parse_line("legal/notices") == Ref("legal", "notices")
    for text in (
        "legal/notices@v1",
        "legal/notices@production",
        f"sha256:{HEX}",
        "legal/notices@sha256:01234567",
        "x",
    ):
        with pytest.raises(Invalid):
            parse_line(text)


@pytest.mark.parametrize("name", ["production", "dev", "canary-2", "a", "vip", "7"])
def test_channel_names(name: str) -> None:
    assert check_channel(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "v7", "v1", "v0", "v01", "sha256", "sha256-x", "Prod", "a b", "-a", "a-", "a" * 65, "a\n"],
)
def test_names_no_channel_may_have(name: str) -> None:
    with pytest.raises(Invalid) as error:
        check_channel(name)
    assert error.value.kind == "bad-channel-name"


@given(names)
def test_a_channel_never_reads_as_something_else(name: str) -> None:
    try:
        check_channel(name)
    except Invalid:
        return
    assert parse_ref(f"a/b@{name}") == Ref("a", "b", channel=name)


def test_environments() -> None:
    assert ENVIRONMENTS == ("dev", "staging", "production")
    for name in ENVIRONMENTS:
        assert check_environment(name) == name
    for name in ("prod", "", "Production", "dev "):
        with pytest.raises(Invalid) as error:
            check_environment(name)
        assert error.value.kind == "bad-environment"


@pytest.mark.parametrize("name", ["claims.v3", "claims.v1.v999999999", "v2.v1"])
def test_a_new_line_is_not_called_like_a_version_of_another(name: str) -> None:
    """Engines that know no revisions pull `claims.v3`, version 3 of claims: a line of that name
    would take its place.
    """
    assert parse_line(f"acme/{name}").name == name
    with pytest.raises(Invalid) as caught:
        check_new_line(Ref("acme", name))
    assert caught.value.kind == "bad-line-name"


@pytest.mark.parametrize("name", ["claims-v3", "claims.v0", "v3", "claims.v3b", "llama-3.1"])
def test_other_names_with_numbers_are_fine(name: str) -> None:
    assert check_new_line(Ref("acme", name)) == name


@pytest.mark.parametrize("name", ["a--b", "a..b", "x.git", "a---b", "x.git.git", "a.--b", "1..2"])
def test_what_no_client_of_the_hub_can_ask_for_names_no_line_and_no_team(name: str) -> None:
    assert parse_line(f"acme/{name}").name == name  # it can be asked about, and is not found
    for ref, kind in ((Ref("acme", name), "bad-line-name"), (Ref(name, "x"), "bad-team")):
        with pytest.raises(Invalid) as caught:
            check_new_line(ref)
        assert caught.value.kind == kind
        assert "clients of the Hub" in caught.value.detail


@given(names, names)
@example("a", "x.git.v1")
@example("z" * 64, "y" * 64)
@example("a", "b.gitx")
def test_the_client_of_the_hub_takes_every_line_and_its_versions(team: str, name: str) -> None:
    """And refuses the rest, where it is not ours for another reason."""
    try:
        check_new_line(Ref(team, name))
    except Invalid:
        if team in RESERVED_TEAMS or PINNED.fullmatch(name) or team.endswith(".git"):
            return
        with pytest.raises(HFValidationError):
            validate_repo_id(f"{team}/{name}")
        return
    validate_repo_id(f"{team}/{name}")
    for number in (1, 999_999_999):
        pulled = repository(f"{team}/{name}@v{number}")
        validate_repo_id(pulled)
        assert read_repository(*pulled.split("/")) == Ref(team, name, number=number)
    assert read_repository(team, name) == Ref(team, name)

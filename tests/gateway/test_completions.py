"""Requests through the gateway: who answers, what the answer says of it, what is kept, and every
refusal.
"""

from __future__ import annotations

import json
import threading

import httpx
import openai
import pytest

from registry.rules.rollouts import arm
from tests.gateway.conftest import Stage
from tests.gateway.served import until

UNITS = [f"user-{number}" for number in range(40)]


def test_arms_are_sticky_and_follow_the_published_bucket(stage: Stage) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v1, v2, weight_bp=3000)
    stage.start()
    stage.ready()
    for unit in UNITS:
        side = arm("salt", unit, 3000)
        answer = stage.ask(unit)
        want = v2 if side == "candidate" else v1
        assert answer.json()["model"] == want.ref
        assert answer.headers["X-Countersign-Version"] == want.ref
        assert answer.headers["X-Countersign-Arm"] == side
        assert answer.headers["X-Countersign-Generation"] == "1"
        assert answer.headers["X-Countersign-Digest"] == want.digest
        assert "X-Countersign-Fallback" not in answer.headers
    assert stage.says() == "one"
    chosen = sum(arm("salt", unit, 3000) == "candidate" for unit in UNITS)
    assert 0 < chosen < len(UNITS)
    counts = stage.http.get("/records/summary").json()["counts"]
    assert [(row["arm"], row["version"], row["requests"], row["fallbacks"]) for row in counts] == [
        ("candidate", v2.ref, chosen, 0),
        ("stable", v1.ref, len(UNITS) - chosen + 1, 0),
    ]


def test_the_unit_id_is_the_same_in_header_and_body(stage: Stage) -> None:
    v1, v2 = stage.door.version("acme/claims@v1"), stage.door.version("acme/claims@v2")
    stage.door.route(v1, v2)
    stage.start()
    stage.ready()
    for unit in ("user-1", "user-2", "Zoë", "日本", "user-5"):
        raw = {b"X-Unit-Id": unit.encode(), b"Content-Type": b"application/json"}
        body = json.dumps({"model": "acme/claims", "prompt": "p"}).encode()
        by_header = stage.http.post("/v1/completions", content=body, headers=raw)
        by_user = stage.ask(user=unit)
        assert by_header.headers["X-Countersign-Arm"] == by_user.headers["X-Countersign-Arm"]
    units = {record["unit"] for record in stage.records()}
    assert len(units) == 5


def test_plain_completions_and_named_channels(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1", "one"))
    stage.start()
    stage.ready()
    answer = stage.http.post(
        "/v1/completions", json={"model": "acme/claims@production", "prompt": "p"}
    )
    assert answer.json()["choices"] == [{"text": "one"}]
    assert answer.json()["model"] == "acme/claims@v1"
    assert stage.http.get("/v1/models").json()["data"][0]["id"] == "acme/claims@production"


def test_a_stream_passes_through_and_is_kept(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1", "one"))
    stage.start()
    stage.ready()
    body = {"model": "acme/claims", "prompt": "p", "stream": True}
    with stage.http.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Countersign-Version"] == "acme/claims@v1"
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert events[-1] == "[DONE]"
    assert "".join(json.loads(e)["choices"][0]["delta"]["content"] for e in events[:-1]) == "one"
    assert {json.loads(e)["model"] for e in events[:-1]} == {"acme/claims@v1"}
    until(lambda: len(stage.records()) == 1, "the stream is recorded")
    assert stage.records()[0]["status"] == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stream_that_breaks_off_says_so(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1", "one"))
    stage.engine.failing["mid-stream"] = 1
    stage.start()
    stage.ready()
    answer = stage.ask(stream=True)
    assert '"engine-failed"' in answer.text
    assert "[DONE]" not in answer.text
    until(lambda: len(stage.records()) == 1, "the stream is recorded")
    assert stage.records()[0]["status"] == 502


def test_a_caller_that_hangs_up_is_kept_and_frees_its_place(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1", "a long answer" * 50))
    stage.engine.slow = 0.05
    stage.start()
    stage.ready()
    body = {"model": "acme/claims", "prompt": "p", "stream": True}
    with stage.http.stream("POST", "/v1/completions", json=body) as answer:
        next(answer.iter_bytes())
    until(lambda: len(stage.records()) == 1, "the hang-up is recorded")
    assert stage.records()[0]["status"] == 499
    until(lambda: stage.gateway.completions._in_flight == 0, "its place is free")


@pytest.mark.parametrize("status", [500, 503, 404])
def test_an_engine_error_on_the_candidate_falls_back_to_stable_once(
    stage: Stage, status: int
) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v1, v2, weight_bp=10_000)
    stage.start()
    stage.ready()
    stage.engine.failing[v2.ref] = status
    answer = stage.ask("user-1")
    assert answer.status_code == 200
    assert answer.json()["model"] == v1.ref
    assert answer.headers["X-Countersign-Arm"] == "candidate"
    assert answer.headers["X-Countersign-Fallback"] == "true"
    record = stage.records()[0]
    assert (record["arm"], record["version"], record["fallback"]) == ("candidate", v1.ref, True)
    stage.engine.failing[v1.ref] = 500
    until(lambda: stage.ask("user-1").status_code == 503, "both fail")
    refused = stage.ask("user-1")
    assert refused.json()["kind"] == "engine-failed"
    assert refused.headers["Retry-After"] == "2"
    last = stage.records()[-1]
    assert (last["status"], last["version"]) == (503, None)


def test_an_engine_error_on_stable_is_not_hidden_behind_the_base(stage: Stage) -> None:
    v1 = stage.door.version("acme/claims@v1")
    stage.door.route(v1)
    stage.start()
    stage.ready()
    stage.engine.failing[v1.ref] = 500
    assert stage.ask().status_code == 503


def test_a_callers_own_mistake_passes_through_without_a_second_try(stage: Stage) -> None:
    v1, v2 = stage.door.version("acme/claims@v1"), stage.door.version("acme/claims@v2")
    stage.door.route(v1, v2, weight_bp=10_000)
    stage.start()
    stage.ready()
    answer = stage.ask("user-1", messages=[])
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "There is no prompt."
    assert answer.headers["X-Countersign-Version"] == v2.ref
    assert stage.records()[0]["status"] == 400


def test_no_prompt_and_no_unit_is_kept_anywhere(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "an answer"),
        stage.door.version("acme/claims@v2", "an answer"),
    )
    stage.door.route(v1, v2, weight_bp=10_000)
    stage.start()
    stage.ready()
    with caplog.at_level("DEBUG", "registry"):
        stage.ask("jane.doe@example.org")
        stage.engine.failing[v2.ref] = 500
        stage.ask("jane.doe@example.org")
        stage.http.post(
            "/v1/completions", content=b'{"model": "acme/claims", "prompt": "a secret prompt"'
        )
    assert stage.engine.prompts == ["a secret prompt"] * 2
    kept = [path.read_text() for path in (stage.cache / "records").iterdir()]
    kept += [stage.http.get("/records/summary").text, stage.http.get("/metrics").text, caplog.text]
    for text in kept:
        assert "secret" not in text
        assert "jane" not in text
        assert "an answer" not in text
    units = {record["unit"] for record in stage.records()}
    assert len(units) == 1
    assert all(len(unit) == 16 and int(unit, 16) >= 0 for unit in units)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"/problems/{document['kind']}"
    assert document["detail"]
    assert document["request_id"] == answer.headers["X-Request-Id"]
    return answer.status_code, document["kind"]


BAD = [
    (b"{", (400, "bad-json")),
    (b"[1]", (400, "bad-request")),
    (b"{}", (400, "bad-request")),
    (b'{"model": 3}', (400, "bad-request")),
    (b'{"model": "acme/claims", "user": 7}', (400, "bad-unit")),
    (b'{"model": "acme/claims", "user": "%s"}' % (b"u" * 257), (400, "bad-unit")),
    (b'{"model": "acme/claims", "n": NaN}', (400, "bad-json")),
    (b"[" * 100_000, (400, "bad-json")),
    (b'{"model": "acme/other"}', (404, "unknown-model")),
    (b'{"model": "acme/claims@v1"}', (404, "unknown-model")),
    (b'{"model": "%s"}' % (b"m" * (1 << 20)), (413, "body-too-large")),
]


def test_what_cannot_be_served_says_why(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1"))
    stage.start()
    stage.ready()
    for content, want in BAD:
        assert refusal(stage.http.post("/v1/completions", content=content)) == want, content[:60]
        assert f'kind="{want[1]}"' in stage.http.get("/metrics").text
    assert stage.records() == []


def test_a_lone_surrogate_is_served_like_any_text(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1", "one"))
    stage.start()
    stage.ready()
    raw = rb'{"model": "acme/claims", "prompt": "half \ud800 of a pair", "user": "\ud800"}'
    answer = stage.http.post("/v1/completions", content=raw)
    assert answer.status_code == 200
    assert stage.engine.prompts == ["half \ud800 of a pair"]


def test_unknown_pages_and_wrong_methods_are_problems(stage: Stage) -> None:
    stage.start()
    assert refusal(stage.http.get("/nowhere")) == (404, "no-such-page")
    assert refusal(stage.http.get("/v1/completions")) == (400, "bad-method")


def test_a_killed_channel_answers_503_at_once(stage: Stage) -> None:
    v1 = stage.door.version("acme/claims@v1")
    stage.door.route(v1)
    stage.start()
    stage.ready()
    stage.door.move_urgently(None, killed=True)
    stage.applied(2)
    answer = stage.ask()
    assert refusal(answer) == (503, "channel-killed")
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["X-Countersign-Generation"] == "2"
    assert stage.records()[-1]["status"] == 503


def test_meters_count_what_was_served(stage: Stage) -> None:
    v1 = stage.door.version("acme/claims@v1")
    stage.door.route(v1)
    stage.start()
    stage.ready()
    for _ in range(3):
        stage.ask()
    text = stage.http.get("/metrics").text
    labels = 'arm="stable",channel="acme/claims@production",status="200",version="acme/claims@v1"'
    assert f"countersign_gateway_requests_total{{{labels}}} 3.0" in text
    assert (
        'countersign_gateway_latency_seconds_count{arm="stable",channel="acme/claims@production"} '
        "3.0" in text
    )
    age = next(
        line
        for line in text.splitlines()
        if line.startswith("countersign_gateway_routing_age_seconds ")
    )
    assert 0 <= float(age.split()[1]) < 60  # seconds since it heard, not a moment


def test_more_than_it_can_hold_is_turned_away_and_let_in_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.door.route(stage.door.version("acme/claims@v1", "one"))
    stage.start()
    stage.ready()
    stage.engine.slow = 600.0
    monkeypatch.setattr("registry.gateway.completions.MAX_IN_FLIGHT", 1)
    first = threading.Thread(target=stage.ask)
    first.start()
    until(lambda: stage.engine.prompts, "the first is in hand")
    answer = stage.ask()
    assert refusal(answer) == (503, "gateway-busy")
    assert answer.headers["Retry-After"] == "1"
    stage.engine.slow = 0.0
    first.join()
    assert stage.says() == "one"


def test_openai_clients_see_why_and_what_to_do(stage: Stage) -> None:
    """openai shows the member `error` of a body; the problem's own members stay for others."""
    stage.door.route(stage.door.version("acme/claims@v1"))
    stage.start()
    stage.ready()
    client = openai.OpenAI(
        base_url=f"{str(stage.http.base_url).rstrip('/')}/v1", api_key="none", max_retries=0
    )
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="acme/nothing", prompt="a")
    assert (unknown.value.code, unknown.value.param) == ("unknown-model", "model")
    assert "acme/nothing" in unknown.value.message
    assert unknown.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as nameless:
        client.completions.create(model=" " * 8, prompt="a", extra_body={"user": 7})
    assert nameless.value.code == "bad-unit"
    stage.door.route(None, killed=True)
    stage.applied(2)
    with pytest.raises(openai.InternalServerError) as killed:
        client.chat.completions.create(
            model="acme/claims", messages=[{"role": "user", "content": "a"}]
        )
    assert killed.value.type == "server_error"
    problem = killed.value.response.json()
    assert problem["error"]["code"] == problem["kind"]
    assert problem["detail"] in problem["error"]["message"]

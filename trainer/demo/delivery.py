"""The delivery half of the main job: canary, promotion, rollback, promotion again, proof."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx

from registry.errors import Fault
from trainer.demo import inputs
from trainer.demo.progress import Bar
from trainer.demo.stage import ALEX, NORA, Stage
from trainer.demo.steps import ENVIRONMENT, LINE_OF, final, kinds

SHARE = 5
"""The canary's share of the requests in percent."""
REQUESTS = {False: 60, True: 80}
"""How many requests the canary gets, without and with the tiny base."""
MIN_CANDIDATE_REQUESTS = 3
"""Requests that the candidate must answer.

Of 60 requests at 5 %, one run in twenty sends it none, and a canary without data shows nothing.
"""
PROBES = 6
"""Requests that check who answers after a change of route."""


@dataclass(frozen=True, slots=True)
class Move:
    """One change of the route: the step's name in the result file, and the command with its reason.

    `after` is the number of the channel's generations before it.
    """

    step: str
    after: int
    verb: str
    reason: str


PROMOTION = Move("promotion", 1, "promote", "The canary was clean.")
ROLLBACK = Move("rollback", 2, "rollback", "Complaint 5512: a wrong category in a contract.")
PROMOTION_AGAIN = Move("promotion_again", 3, "promote", "Complaint 5512 was about another system.")


def canary(stage: Stage) -> None:
    """The approved version gets 5 % of real requests through the gateway, the base the rest."""
    with stage.timed("canary"):
        ref = final(stage, stage.client(NORA))
        done = kinds(stage)
        if not done:
            stage.run(NORA, "canary", "start", ref, "--env", ENVIRONMENT, "--share", str(SHARE))
        elif done != ["canary"] or "arms" in stage.result:
            stage.say("  Found the canary already done.")
            return
        _wait_until_applied(stage, 1)
        began = time.monotonic()
        arms = _send(stage, REQUESTS[stage.tiny])
        total = sum(arms.values())
        stage.note("requests_per_second", round(total / (time.monotonic() - began), 2))
        records = _records(stage)
        stage.note("arms", {"requests": total, **arms, "records": records})
    recorded: Counter[str] = Counter()
    for record in records:
        recorded[record["arm"]] += record["requests"]
    # A demo that was killed in this step has left the records of its first requests.
    agreement = (
        "the gateway's own records agree"
        if recorded == arms
        else f"the gateway recorded {recorded.total()}, with those of an earlier attempt"
    )
    answered = ", ".join(f"{count} by the {arm}" for arm, count in sorted(arms.items()))
    stage.say(f"  {total} requests: {answered} ({agreement}).")


def promotion(stage: Stage) -> None:
    """The canary becomes the stable version and answers every request."""
    _move(stage, PROMOTION, final(stage, stage.client(NORA)))


def rollback(stage: Stage) -> None:
    """A complaint comes in: one command returns all requests to the base."""
    base = stage.client(NORA).version(final(stage, stage.client(NORA))).base
    assert base is not None
    _move(stage, ROLLBACK, base)


def promotion_again(stage: Stage) -> None:
    """The complaint was about another system: the version is promoted again, with no new canary."""
    _move(stage, PROMOTION_AGAIN, final(stage, stage.client(NORA)))


def _move(stage: Stage, move: Move, expected: str) -> None:
    """Change the route, wait for the gateway, and check by requests that `expected` answers."""
    with stage.timed(move.step):
        if len(kinds(stage)) > move.after:
            stage.say("  Found it already done.")
            return
        began = time.monotonic()
        line = LINE_OF[stage.tiny]
        route = stage.run(NORA, move.verb, line, "--env", ENVIRONMENT, "--reason", move.reason)
        _wait_until_applied(stage, route["generation"])
        seconds = round(time.monotonic() - began, 2)
        answered = {_ask(stage, f"probe-{number}")[0] for number in range(PROBES)}
        if answered != {expected}:
            raise Fault(
                "route-not-followed",
                f"After {move.verb}, {', '.join(sorted(answered))} answered instead of {expected}.",
            )
        stage.note(f"{move.step}_seconds_to_gateway", seconds)
    followed = f"the gateway followed {seconds} s after the command began"
    stage.say(f"  {expected} answers every request; {followed}.")


def _wait_until_applied(stage: Stage, generation: int) -> None:
    """Wait until the gateway serves this generation, for which its engine has loaded the arms."""

    def serves() -> bool:
        try:
            models = httpx.get(f"{stage.urls['gateway']}/v1/models", timeout=10).json()["data"]
        except httpx.HTTPError:
            return False
        generations = [
            model["countersign"]["generation"]
            for model in models
            if model["id"].startswith(LINE_OF[stage.tiny])
        ]
        return bool(generations) and generations[0] is not None and generations[0] >= generation

    stage.wait("the gateway to follow the route", serves, 300)


def _prompts(stage: Stage) -> list[str]:
    folder = stage.home / "inputs"
    path = inputs.tiny_dataset(folder) if stage.tiny else inputs.dataset_file(folder)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["prompt"] for row in rows if row["split"] == "test"]


def _ask(stage: Stage, unit: str, prompt: str = "hello") -> tuple[str, str]:
    """Send one request as an application does; return the version and the arm that answered."""
    answer = httpx.post(
        f"{stage.urls['gateway']}/v1/chat/completions",
        headers={"X-Unit-Id": unit},
        timeout=120,
        json={
            "model": LINE_OF[stage.tiny],
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 4,
        },
    )
    answer.raise_for_status()
    return answer.headers["X-Countersign-Version"], answer.headers["X-Countersign-Arm"]


def _send(stage: Stage, count: int) -> Counter[str]:
    """Send `count` requests of different users, and more while the candidate has answered too few.

    Returns how many requests each arm answered.
    """
    prompts = _prompts(stage)
    arms: Counter[str] = Counter({"stable": 0, "candidate": 0})
    limit = 10 * count
    with Bar("requests", stage.out) as bar:
        for number in range(limit):
            if number >= count and arms["candidate"] >= MIN_CANDIDATE_REQUESTS:
                break
            arms[_ask(stage, f"user-{number}", prompts[number % len(prompts)])[1]] += 1
            bar.show(number + 1, max(count, number + 1), f"{arms['candidate']} by the candidate")
    if arms["candidate"] < MIN_CANDIDATE_REQUESTS:
        raise Fault(
            "canary-unmet",
            f"The candidate answered {arms['candidate']} of {limit} requests at {SHARE} %.",
        )
    return arms


def _records(stage: Stage) -> list[dict[str, Any]]:
    """What the gateway itself recorded of generation 1, the canary's."""
    summary = httpx.get(f"{stage.urls['gateway']}/records/summary", timeout=10).json()
    return [count for count in summary["counts"] if count["generation"] == 1]


def proof(stage: Stage) -> None:
    """The auditor exports the whole log and verifies it offline, with the registry stopped."""
    with stage.timed("proof"):
        pack = stage.home / "pack.zip"
        pack.unlink(missing_ok=True)
        stage.wait(
            "the end of the log to be signed",
            lambda: stage.client(ALEX).tree_head().pending == 0,
            60,
        )
        stage.run(ALEX, "audit", "export", "--out", str(pack))
        stage.stop()
        stage.say("  The registry is stopped.")
        key = stage.registry_home / "log.pub"
        stage.say("  alex $ countersign-verify demo/pack.zip --key demo/registry/log.pub")
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")
        }
        verifier = subprocess.run(
            [sys.executable, "-m", "registry.verifier", str(pack), "--key", str(key), "--json"],
            text=True,
            capture_output=True,
            env=environ,
            check=False,
        )
        if verifier.returncode:
            raise Fault("log-not-verified", (verifier.stdout + verifier.stderr).strip()[-500:])
        log = json.loads(verifier.stdout)
        stage.note("log", {key: log[key] for key in ("events", "votes", "root")})
    stage.say(
        f"  Valid: {log['events']} events and {log['votes']} signed votes under the root "
        f"{log['root']}."
    )
    if not stage.ends:
        stage.start()
        stage.await_ready()

"""transformers with PEFT 0.21.2, as this repository pins and runs them."""

from __future__ import annotations

from registry.rules.engines.rule import IN_PROCESS, Engine

ENGINE = Engine(
    "transformers",
    builds=("5.23.0",),
    forbids=(IN_PROCESS,),
    needs=lambda facts: {"loads_as": facts["loads_as"]} if facts.get("loads_as") else {},
)

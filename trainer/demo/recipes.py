"""The demo's two recipes, with the reason beside each number; measured on two cores shared with other work."""

from __future__ import annotations

from typing import Any

SMOLLM2: dict[str, Any] = {
    "method": "lora",
    "rank": 16,  # twice DEMO.md's first trial: 3.2 M weights at most, a fraction of a second's difference a step
    "alpha": 32,
    "dropout": 0.0,  # no row is seen twice in 36 steps, so there is nothing to forget
    "layers": [15, 29],  # the upper half: gradients stop there, which halves the backward pass
    "steps": 36,  # 36 x 8 of 534 rows; under four minutes on two slow cores
    "batch_size": 8,
    "learning_rate": 1e-3,  # 2e-3 was less even over the classes
    "warmup_steps": 3,  # the first batches' loss is far above the rest, and Adam starts without a memory
    "max_length": 192,  # tokens; the longest notice with its question has fewer
    "seed": 0,
    "template": "chat",
    "dtype": "float32",  # full speed on every CPU; bfloat16 crawls on those without it
    "publish_at": [18, 36],  # half training is the demo's first version, the one that is recalled later
    "save_every": 6,  # a killed trainer loses half a minute at most
    "sample": None,
}

TINY: dict[str, Any] = {
    "method": "lora",
    "rank": 8,
    "alpha": 16,
    "dropout": 0.0,
    "steps": 48,  # enough for nearly every one of 64 letters; at 24 half of them
    "batch_size": 32,  # smaller batches stay noise on a base that is noise
    "learning_rate": 1e-2,
    "max_length": 48,
    "seed": 0,
    "template": "chat",
    "dtype": "float32",
    "publish_at": [24, 48],
    "save_every": 12,
}

"""How it is kept: tables by noun, and the store that alone opens transactions."""

from registry.db import (  # noqa: F401
    accounts,
    audit,
    datasets,
    evals,
    lineage,
    policies,
    profiles,
    reviews,
    rollouts,
    search,
    tags,
    training_runs,
    use_cases,
    versions,
)  # fmt: skip

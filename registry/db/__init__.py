"""The tables, one module a noun, and the store, which alone opens transactions."""

from registry.db import (  # noqa: F401 - imported so that the metadata is complete
    accounts,
    audit,
    blobs,
    datasets,
    deprecations,
    evals,
    lineage,
    policies,
    profiles,
    quotas,
    retention,
    reviews,
    rollouts,
    search,
    tags,
    tombstones,
    training_runs,
    use_cases,
    versions,
)

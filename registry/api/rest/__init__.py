"""The REST API under /api/v1: one router for each noun, request bodies in `schemas`."""

from fastapi import APIRouter

from registry.api.rest import (
    accounts,
    audit,
    blobs,
    chat_templates,
    datasets,
    evals,
    lineage,
    policies,
    profiles,
    retention,
    reviews,
    rollouts,
    search,
    tags,
    training_runs,
    uploads,
    use_cases,
    versions,
    work,
)

NOUNS = (
    search,
    tags,
    retention,
    accounts,
    audit,
    blobs,
    chat_templates,
    datasets,
    evals,
    lineage,
    policies,
    profiles,
    reviews,
    rollouts,
    training_runs,
    uploads,
    use_cases,
    versions,
    work,
)


def router() -> APIRouter:
    """The routes of every noun, under /api/v1."""
    whole = APIRouter(prefix="/api/v1")
    for noun in NOUNS:
        whole.include_router(noun.router)
    return whole

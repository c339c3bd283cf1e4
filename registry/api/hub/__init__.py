"""The Hub dialect, read-only: what huggingface_hub, peft and transformers ask of HF_ENDPOINT."""

from fastapi import APIRouter

from registry.api.hub import files, models, others


def router() -> APIRouter:
    """Repositories under /api, their files at the root, and an answer to everything else that
    clients ask a Hub.
    """
    whole = APIRouter(include_in_schema=False)
    whole.include_router(models.router)
    whole.include_router(files.router)
    whole.include_router(others.router)
    return whole

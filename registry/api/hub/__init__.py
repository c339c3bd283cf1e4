"""The Hub dialect, read side: what huggingface_hub, peft and transformers ask of HF_ENDPOINT."""

from fastapi import APIRouter

from registry.api.hub import files, models


def router() -> APIRouter:
    """Both rooms: repositories under /api, and their files at the root."""
    whole = APIRouter(include_in_schema=False)
    whole.include_router(models.router)
    whole.include_router(files.router)
    return whole

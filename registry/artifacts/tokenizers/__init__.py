"""Tokenizers and chat templates: read strictly, compared with those of the base."""

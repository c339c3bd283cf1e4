"""Tokenizers and chat templates: read strictly, and compared with those of the base."""

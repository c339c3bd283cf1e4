"""Queries on the real PostgreSQL."""

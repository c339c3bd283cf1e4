"""migrations/schema.sql: the schema as the migrations make it, by noun, for people to read."""

"""The embedded PostgreSQL of `countersign up`, its directories, and the home directory."""

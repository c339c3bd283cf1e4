"""Data sets row by row, the items of eval suites, and the samples of eval runs."""

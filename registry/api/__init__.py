"""The interfaces for programs: one folder for each dialect."""

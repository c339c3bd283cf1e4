"""The main job on real input: people with one role each use the public command line and client."""

"""The main job on real input, driven through the public command line and client by accounts with
just the role they need.
"""

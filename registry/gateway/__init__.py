"""The data plane, a program of its own between applications and an engine.

It asks the registry what to serve, has the engine serve it, and records every request. It outlives
the registry: the last good routes are on its disk, and its only credential is a gateway token.

`routing` keeps the routes and `cache` the files. `engine` and `arms` keep the engine loaded with
what the routes name. `requests` reads a caller's request, `plan` chooses who answers, `completions`
serves it, `records` and `meters` count it. `app` and `main` put the parts together.
"""

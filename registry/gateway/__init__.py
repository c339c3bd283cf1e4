"""The data plane, a program of its own: asks the registry what to serve, has an engine serve it,
and keeps count.

It outlives the registry: the last good routes lie on its disk, and it holds no credential but a
gateway token. `routing` keeps the routes, `cache` the bytes, `engine` and `arms` what the engine
holds, `plan` chooses who answers, `completions` serves a request, `records` and `meters` count it,
`app` and `main` put it together.
"""

"""People's door: server-rendered pages under a strict CSP, one small script of our own, no
third-party JavaScript.

`install(app)` is all the composition root calls. Every page reads through queries and changes
through one command, so the console can do nothing that REST cannot. Every form works with
JavaScript off; only signing in the browser asks for it.
"""

from registry.web.install import install

__all__ = ["install"]

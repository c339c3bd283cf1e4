"""The console: server-rendered pages under a strict CSP, with one small script and no third-party
JavaScript.

The application calls only `install(app)`. Every page reads through queries and changes things
through one command, so the console can do nothing that REST cannot. Every form works without
JavaScript, except that signing a decision in the browser needs it.
"""

from registry.web.install import install

__all__ = ["install"]

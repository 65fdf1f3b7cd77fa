"""bjoern as its README starts it: it has no command of its own.

    python serve_bjoern.py MODULE:CALLABLE HOST PORT
    python serve_bjoern.py MODULE:CALLABLE unix:PATH

SIGTERM ends it at once.
"""

from __future__ import annotations

import importlib
import sys

import bjoern

if __name__ == "__main__":
    app, host, *port = sys.argv[1:]
    module, _, name = app.partition(":")
    bjoern.run(getattr(importlib.import_module(module), name), host, *map(int, port))

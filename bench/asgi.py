"""The WSGI application that APP in the environment names, for servers of ASGI: by a2wsgi."""

from __future__ import annotations

import importlib
import os

from a2wsgi import WSGIMiddleware

module, _, name = os.environ["APP"].partition(":")
application = WSGIMiddleware(getattr(importlib.import_module(module), name))

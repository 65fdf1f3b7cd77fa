"""cheroot with TLS as its documentation shows it: its command has no option for that.

    python serve_cheroot.py MODULE:CALLABLE PORT CERTIFICATE KEY

The rest is as the command does it. SIGTERM ends it.
"""

from __future__ import annotations

import importlib
import signal
import sys

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server

if __name__ == "__main__":
    app, port, certificate, key = sys.argv[1:]
    module, _, name = app.partition(":")
    server = Server(("127.0.0.1", int(port)), getattr(importlib.import_module(module), name))
    server.ssl_adapter = BuiltinSSLAdapter(certificate, key)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.safe_start()
    except KeyboardInterrupt:
        pass

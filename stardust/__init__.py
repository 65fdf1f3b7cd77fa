"""stardust: a pre-forking HTTP/1.1 server for WSGI applications, native to systemd."""

__version__ = "0.1.0"

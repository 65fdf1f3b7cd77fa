"""HTTP/1.1 without I/O: bytes to request head and body, status and headers to bytes (RFC 9110, RFC 9112)."""

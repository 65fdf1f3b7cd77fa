"""What has no idea of HTTP, processes or systemd: errors, records, addresses, system calls, memory."""

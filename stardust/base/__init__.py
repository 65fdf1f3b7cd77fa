"""Errors, records, addresses, system calls, memory: nothing here knows HTTP, processes or systemd."""

"""What is told, and where it goes: events, journal, server log, access log."""

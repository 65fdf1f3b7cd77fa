"""What is logged, and where it goes: events, journal, server log, access log."""

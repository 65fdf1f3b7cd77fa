"""The one table of settings, its rows, and the kinds of their values."""

"""Sockets that are listened on: chosen, bound, kept."""

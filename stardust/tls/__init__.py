"""Certificates, and the contexts that are made of them."""

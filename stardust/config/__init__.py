"""TOML and flags become a configuration, and every mistake in them is reported."""

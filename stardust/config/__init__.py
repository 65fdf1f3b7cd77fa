"""TOML and flags become a configuration; what is wrong with them is said."""

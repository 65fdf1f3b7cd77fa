"""A worker process: one event loop that serves connections and runs the application."""

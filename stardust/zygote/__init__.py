"""The application's own interpreter: loads the application once, and forks workers."""

"""Session storage for Python bots that does not forget."""

"""The memory driver."""

"""The redis driver."""

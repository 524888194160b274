"""The sqlite driver."""

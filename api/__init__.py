"""The HTTP gateway; no torch."""

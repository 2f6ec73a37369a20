"""The mr command."""

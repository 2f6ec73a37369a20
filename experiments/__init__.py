"""Replications of published experiments, through the API of a running service."""

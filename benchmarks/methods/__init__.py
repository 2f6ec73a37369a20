"""The methods against each other on real data, through the API of a running service."""

"""Registries: the client, its credentials, and everything it guards against."""

"""Importing: models that are on this machine already, or on the web as plain files."""

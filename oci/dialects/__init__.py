"""Dialects: one module for each form in which a model is written down as a manifest."""

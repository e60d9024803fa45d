"""Lading: Docker for models.

This file must import nothing of ours: ``import lading`` stays free.
"""

__version__ = "0.1.0"

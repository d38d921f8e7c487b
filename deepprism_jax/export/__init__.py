"""Trained models as files that are run without this package."""

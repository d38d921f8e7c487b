"""Measuring models of one image by their samples."""

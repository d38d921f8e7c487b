"""Drawing images from trained models: what `sample.py` does."""

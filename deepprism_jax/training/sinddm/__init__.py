"""Training of single-image denoisers (SinDDM), one or many at once."""

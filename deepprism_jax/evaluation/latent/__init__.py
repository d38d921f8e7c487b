"""Evaluation of runs of latent diffusion."""

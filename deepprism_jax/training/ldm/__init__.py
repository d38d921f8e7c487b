"""Latent diffusion: a denoiser of an autoencoder's latents, or of pixels."""

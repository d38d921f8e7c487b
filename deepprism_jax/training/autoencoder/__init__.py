"""Training of autoencoders: networks, eq. (9) as one objective, reconstructions."""

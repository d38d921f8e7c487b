"""Loss terms: pure functions of arrays, one term a file."""

from deepprism_jax.losses.adversarial import adaptive_weight as adaptive_weight
from deepprism_jax.losses.adversarial import (
    adversarial_schedule as adversarial_schedule,
)
from deepprism_jax.losses.adversarial import discriminator_loss as discriminator_loss
from deepprism_jax.losses.adversarial import generator_loss as generator_loss
from deepprism_jax.losses.kl import gaussian_kl as gaussian_kl
from deepprism_jax.losses.perceptual import PerceptualDistance as PerceptualDistance
from deepprism_jax.losses.perceptual import layer_weights as layer_weights
from deepprism_jax.losses.perceptual import perceptual_distance as perceptual_distance
from deepprism_jax.losses.pixel import reconstruction_loss as reconstruction_loss
from deepprism_jax.losses.regularizers import LeCamAverages as LeCamAverages
from deepprism_jax.losses.regularizers import lecam_init as lecam_init
from deepprism_jax.losses.regularizers import lecam_regularizer as lecam_regularizer
from deepprism_jax.losses.regularizers import lecam_update as lecam_update
from deepprism_jax.losses.regularizers import r1_penalty as r1_penalty
from deepprism_jax.losses.structural import structural_loss as structural_loss
from deepprism_jax.losses.vq import codebook_loss as codebook_loss
from deepprism_jax.losses.vq import commitment_loss as commitment_loss
from deepprism_jax.losses.vq import straight_through as straight_through

"""Sources of images and the pipeline that makes batches of them."""

from deepprism_jax.data.images import UnreadableImageError as UnreadableImageError
from deepprism_jax.data.pipeline import EvalBatches as EvalBatches
from deepprism_jax.data.pipeline import TrainBatches as TrainBatches
from deepprism_jax.data.pipeline import eval_batches as eval_batches
from deepprism_jax.data.pipeline import train_batches as train_batches
from deepprism_jax.data.source import ArraySource as ArraySource
from deepprism_jax.data.source import Source as Source
from deepprism_jax.data.source import class_names as class_names
from deepprism_jax.data.sources import make_source as make_source

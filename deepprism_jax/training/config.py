"""What an experiment is: nested frozen dataclasses, and nothing that computes.

Every field can be overridden on the command line by its dotted name, for example
`--model.conv dense`. The string under a field is its `--help`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from deepprism_jax.choices import ChannelPadding, ConvKind


@dataclass(frozen=True)
class ModelConfig:
    """The autoencoder."""

    latent: Literal["kl", "vq"] = "kl"
    """Kind of latent: Gaussian posterior (KL) or codebook (VQ)."""
    conv: ConvKind = "deepprism"
    """Kind of every hidden convolution; the dial between DeepPrism and the baseline."""
    width: int = 256
    """Channels C of every hidden layer."""
    multipliers: tuple[int, ...] = ()
    """Factors of `width`, one a level from the images on; empty is 1 everywhere."""
    fields: int = 1
    """Fields F of `deepprism`: 1 is the paper's; between 1 and C it nears `dense`."""
    groups: int = 32
    """Groups of the `group` kind."""
    rank: int = 16
    """Rank of the `low_rank` kind."""
    channel_padding: ChannelPadding = "circular"
    """Topology of the channel axis (Table 1): interval, line or circle."""
    downsamples: int = 2
    """Number of 2x resamplings; a latent is 2**downsamples times smaller a side."""
    blocks: int = 2
    """Residual blocks a level of the encoder; the decoder has one more."""
    z_channels: int = 3
    """Numbers at every position of the latent."""
    attention: bool = True
    """Attention between the two middle blocks of encoder and decoder."""
    heads: int = 1
    """Attention heads."""
    norm_groups: int = 32
    """Groups of every GroupNorm; must divide `width`."""
    codebook_size: int = 1024
    """Codes of the VQ codebook."""
    codebook_update: Literal["ema", "gradient"] = "ema"
    """Codebook learned by moving averages of its codes, or by the gradient."""


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they become batches."""

    source: Literal["photos", "folder", "cifar10", "tfds"] = "photos"
    """Photographs of installed packages, image folder, CIFAR-10 files, or TFDS."""
    path: str = ""
    """Folder of images, CIFAR-10 directory, or TFDS `data_dir`."""
    name: str = ""
    """TFDS data set name, for example `cifar10` or `imagenet2012`."""
    image_size: tuple[int, int] = (32, 32)
    """Height and width that the network sees."""
    channels: int = 3
    """Image channels: 1 grayscale, 3 RGB, 4 RGBA; images are converted."""
    resize: Literal["cover", "keep"] = "cover"
    """`folder` and `tfds`: scale images to just cover the crop, or keep larger ones."""
    crop: Literal["random", "center"] = "random"
    """How a training image larger than `image_size` is cut."""
    flip: bool = True
    """Flip training images left-right at random."""
    train_split: str = "train"
    """Split to train on; see `eval_split`."""
    eval_split: str = "test"
    """Split to evaluate on; of `folder` a sub-folder, `.`, or a part as `.[90%:]`."""


@dataclass(frozen=True)
class LossConfig:
    """Terms of eq. (9) and their weights."""

    reconstruction: Literal["l2", "l1"] = "l2"
    """Pixel term: mean square (eq. 6) or mean absolute error."""
    reduction: Literal["mean", "sum"] = "mean"
    """Reduce the pixel term over an image by mean (the paper) or sum (LDM)."""
    perceptual_weight: float = 0.0
    """lambda_1; above 0 needs the weights of a feature network."""
    perceptual_net: Literal["squeeze", "vgg", "alex"] = "squeeze"
    """Frozen feature network V of eq. (7)."""
    perceptual_weights: str = ""
    """File of its weights in torchvision's layout; empty takes those in the store."""
    perceptual_heads: str = ""
    """File of LPIPS heads, or `lpips` for the store's; empty learns one w_l a layer."""
    ssim_weight: float = 0.0
    """Weight of 1 - SSIM, which needs images of at least 11 pixels a side; 0 is off."""
    kl_weight: float = 1e-6
    """lambda_2, weight of the KL term (eq. 8), summed over the latent."""
    commitment_weight: float = 0.25
    """Weight beta of the VQ commitment term."""
    adversarial_weight: float = 0.0
    """lambda_3; 0 trains without a discriminator."""
    adversarial: Literal["hinge", "nonsaturating"] = "hinge"
    """Adversarial loss."""
    adversarial_start: float = 0.5
    """First step of the adversarial term; below 1 it is a fraction of training."""
    adversarial_ramp: float = 0.05
    """Steps over which its weight rises linearly to full; below 1 a fraction."""
    discriminator_warmup: float = 0.05
    """Steps that the discriminator trains alone before that; below 1 a fraction."""
    adaptive_weight: bool = True
    """Scale the adversarial gradient to the others' at the last layer (LDM)."""
    r1_weight: float = 0.0
    """Weight of the R1 gradient penalty on real images; 0 is off."""
    lecam_weight: float = 0.0
    """Weight of the LeCam regulariser; 0 is off."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """PatchGAN discriminator; built where `loss.adversarial_weight` is above 0."""

    conv: ConvKind = "dense"
    """Kind of its hidden convolutions."""
    width: int = 64
    """Channels after the first layer."""
    layers: int = 0
    """Strided layers; 0 chooses 2 up to 32 px and 3 above."""
    fields: int = 1
    """Fields F of `deepprism`; must divide `width`."""
    groups: int = 32
    """Groups of the `group` kind; must divide `width`."""
    rank: int = 16
    """Rank of the `low_rank` kind; at most `width`."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer of both networks."""

    name: Literal["adam", "adamw", "lion", "sgd", "soap"] = "adam"
    """optax optimizer, or SOAP: Adam along axes found for each tensor."""
    learning_rate: float = 1e-3
    """Base learning rate; see `scale_by_batch`."""
    scale_by_batch: bool = False
    """Multiply the base learning rate by the whole batch, as the paper and LDM do."""
    b1: float = 0.9
    """Decay of the first moment."""
    b2: float = 0.999
    """Decay of the second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay (adamw, lion, soap)."""
    clip_norm: float = 1.0
    """Clip gradients to this global norm; 0 is off."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    schedule: Literal["constant", "cosine", "milestones"] = "constant"
    """Learning rate after the warm-up."""
    milestones: tuple[float, ...] = (1 / 6, 1 / 3, 7 / 12, 2 / 3, 3 / 4, 11 / 12)
    """Fractions of the steps at each of which `milestones` halves the rate."""
    final_ratio: float = 0.0
    """Last learning rate of the cosine schedule, as a ratio of the peak."""
    discriminator_ratio: float = 1.0
    """Learning rate of the discriminator, as a ratio of the autoencoder's."""


@dataclass(frozen=True)
class TrainConfig:
    """The program around the step."""

    steps: int = 10_000
    """Optimizer steps of the whole run."""
    batch_size: int = 64
    """Images an optimizer step, over all devices and accumulation steps."""
    accumulation: int = 1
    """Micro-batches a step; each is `batch_size / accumulation` images."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type; parameters, norms, softmax and losses are float32 throughout."""
    ema_decay: float = 0.999
    """Decay of the moving average of the parameters, which is evaluated; 0 is off."""
    seed: int = 0
    """Seed of initialisation, data order and noise."""
    log_every: int = 50
    """Steps between log lines."""
    eval_every: int = 0
    """Steps between evaluations besides those at start and end; 0 is none."""
    eval_images: int = 0
    """Images of such an evaluation; 0 takes the whole split."""
    save_every: int = 1000
    """Steps between checkpoints besides the one at the end; 0 is none."""
    keep: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 0
    """Checkpoints of best `eval/psnr` kept besides; above 0 a new best is saved."""
    remat: Literal["none", "blocks"] = "none"
    """Activations computed again in the backward pass: none, or those inside blocks."""
    profile_steps: tuple[int, int] = (0, 0)
    """First and last step of a profiler trace; 0 0 is none."""
    init_from: Annotated[str, tyro.conf.arg(aliases=["--init-from"])] = ""
    """Model to begin with, of this width or less: a name of the package, or a path."""
    step_timeout: float = 1800.0
    """Seconds after which a step that hangs ends the run, naming the host; 0 is off."""
    debug_nans: bool = False
    """Stop at the very operation that makes a NaN (slow)."""


@dataclass(frozen=True)
class MeshConfig:
    """Devices as a grid: data x fsdp x channel is their number."""

    data: int = 0
    """Parts of the batch; 0 takes the devices that the other axes leave."""
    fsdp: int = 1
    """Parts of the batch over which parameters and optimizer are cut as well."""
    channel: int = 1
    """Parts into which the channels of every feature map are cut."""


@dataclass(frozen=True)
class Config:
    """One experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

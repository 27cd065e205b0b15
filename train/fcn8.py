"""FCN8: the VGG16 encoder, its convolutionalised head and three skips, as one plain Keras network.

Knows the layers; knows nothing of data, losses or schedules. Backend-neutral: `keras` only.

The architecture is the notebook's, layer for layer: conv6/conv7 replace VGG's fully connected layers, the head's score
is upsampled by 4, pool4's by 2, both are added to pool3's, and the sum is upsampled by 8. At the default widths and 12
classes it has exactly 135,066,008 parameters. Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation", 2015 (arXiv 1411.4038).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from edge_seg.errors import ConfigurationError

CONVOLUTIONS_PER_BLOCK = (2, 2, 3, 3, 3)
STRIDE = 32
BATCH_NORM_MOMENTUM = 0.97
MAX_CLASSES = 256  # a label is a byte
UPSAMPLINGS = ("conv7_upsample4", "pool4_upsample2", "upsample8")
MAX_PARAMETERS = 2**29  # four times the notebook's; 2 GB of float32
# ImageNet's mean in BGR, 0..255, which kernels in Keras' "caffe" convention expect to be subtracted from frames.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True, kw_only=True)
class Fcn8Config:
    """The configuration of one FCN8: classes, size and widths.

    Attributes:
        classes: number of output classes.
        input_size: (height, width) in pixels, each divisible by 32; None to accept any such size.
        block_widths: filters of the convolutions in blocks 1 to 5.
        head_widths: filters of conv6 and conv7.
        skip_activation: activation of `pool3_conv` and `pool4_conv`: "relu" as in the notebook, "linear" as in the
            paper, where a skip can also vote against a class.
    """

    classes: int = 12
    input_size: tuple[int, int] | None = (224, 224)
    block_widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    head_widths: tuple[int, int] = (4096, 4096)
    skip_activation: str = "relu"

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= MAX_CLASSES:
            raise ConfigurationError(f"FCN8 needs 2 to {MAX_CLASSES} classes, got {self.classes}.")
        if self.input_size is not None:
            check_input_size(self.input_size)
        widths = (*self.block_widths, *self.head_widths)
        if len(self.block_widths) != 5 or len(self.head_widths) != 2 or min(widths) < 1:
            raise ConfigurationError(
                "FCN8 needs 5 block widths and 2 head widths, all positive; "
                f"got {self.block_widths} and {self.head_widths}."
            )
        if self.parameters > MAX_PARAMETERS:
            raise ConfigurationError(
                f"FCN8 of the widths {self.block_widths} and {self.head_widths} has {self.parameters} parameters; at "
                f"most {MAX_PARAMETERS} are built."
            )
        if self.skip_activation not in ("relu", "linear"):
            raise ConfigurationError(f'skip_activation must be "relu" or "linear", got {self.skip_activation!r}.')

    @property
    def widths(self) -> tuple[int, ...]:
        """Filters of blocks 1 to 5, conv6 and conv7."""
        return (*self.block_widths, *self.head_widths)

    @property
    def parameters(self) -> int:
        """Number of weights of the plain network, computed without building it."""
        widths = [
            width for width, count in zip(self.block_widths, CONVOLUTIONS_PER_BLOCK, strict=True) for _ in range(count)
        ]
        convolutions = [(9 * before + 1) * after for before, after in zip([3, *widths], widths, strict=False)]
        wide, score = self.head_widths
        head = (49 * widths[-1] + 1) * wide + (wide + 1) * score
        skips = sum((self.block_widths[block] + 1) * self.classes for block in (2, 3))
        upsamplings = 16 * score * self.classes + (4 + 64) * self.classes**2
        return sum(convolutions) + head + skips + upsamplings

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Fcn8Config:
        """The inverse of `to_dict` (lists become tuples)."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**fields)

    def with_size(self, input_size: tuple[int, int] | None) -> Fcn8Config:
        """The same network for another input size."""
        return replace(self, input_size=input_size)


def check_input_size(size: tuple[int, int]) -> None:
    """Raise `ConfigurationError` unless both sides are positive multiples of 32 (five poolings halve them)."""
    if len(size) != 2 or any(side < STRIDE or side % STRIDE for side in size):
        raise ConfigurationError(
            f"FCN8 halves its input five times, so height and width must be multiples of {STRIDE}; "
            f"got {'x'.join(str(side) for side in size)}."
        )


def fcn8(
    config: Fcn8Config | None = None,
    *,
    batch_norm_from: int | None = None,
    dropout: float = 0.0,
    kernel_initializer: str = "he_normal",
    synchronized: bool = False,
) -> keras.Model:
    """Build FCN8.

    Args:
        config: sizes; the notebook's network by default.
        batch_norm_from: from this block on (1 to 5; 6 is the head) put a batch normalisation between each convolution
            and its Relu, for training only: `train.fold.fold_batch_norm` turns the result into the plain network.
        dropout: share of conv6's and conv7's outputs dropped in training.
        kernel_initializer: of the convolutions; "zeros" where weights are loaded next: quicker, and 0.8 GB less at the
            notebook's widths.
        synchronized: batch normalisation averages over all devices of a `tf.distribute` strategy (TensorFlow only).

    Returns:
        A model from scaled BGR frames (N, H, W, 3) float32 in [-1, 1] to class probabilities (N, H, W, classes)
        float32. Its layer "upsample8" gives the logits.

    Raises:
        ConfigurationError: a size or width that FCN8 cannot have.
    """
    config = config or Fcn8Config()
    layers = keras.layers
    height, width = config.input_size or (None, None)
    first_norm = 7 if batch_norm_from is None else batch_norm_from
    convolution = partial(_convolution, initializer=kernel_initializer, synchronized=synchronized)
    frames = keras.Input((height, width, 3), name="scaled_frames")

    x = frames
    pools = []
    for block, (filters, count) in enumerate(zip(config.block_widths, CONVOLUTIONS_PER_BLOCK, strict=True), start=1):
        for index in range(1, count + 1):
            x = convolution(x, filters, 3, f"block{block}_conv{index}", block >= first_norm)
        x = layers.MaxPooling2D(2, strides=2, name=f"block{block}_pool")(x)
        pools.append(x)

    x = convolution(x, config.head_widths[0], 7, "conv6", first_norm <= 6)
    x = layers.Dropout(dropout, name="drop6")(x) if dropout else x
    x = convolution(x, config.head_widths[1], 1, "conv7", first_norm <= 6)
    x = layers.Dropout(dropout, name="drop7")(x) if dropout else x

    head = _upsampling(config.classes, 4, "conv7_upsample4")(x)
    skips = {
        block: layers.Conv2D(
            config.classes, 1, activation=config.skip_activation, padding="same", name=f"pool{block}_conv"
        )(pools[block - 1])
        for block in (3, 4)
    }
    skip4 = _upsampling(config.classes, 2, "pool4_upsample2")(skips[4])
    x = layers.Add(name="add")([skip4, skips[3], head])
    logits = _upsampling(config.classes, 8, "upsample8")(x)
    # Softmax in float32 whatever the policy: in bfloat16 its tails vanish and the loss with them.
    probabilities = layers.Activation("softmax", dtype="float32", name="softmax")(logits)
    return keras.Model(frames, probabilities, name="fcn8")


def logits_model(model: keras.Model) -> keras.Model:
    """The same network without its softmax: (N, H, W, classes), float32 under any policy."""
    logits = model.get_layer("upsample8").output
    return keras.Model(
        model.input, keras.layers.Activation("linear", dtype="float32", name="logits")(logits), name="fcn8_logits"
    )


class RepeatPixels(keras.initializers.Initializer):
    """Initial kernel of a transposed convolution from classes to classes: repeats each score over its block of pixels.

    The paper also starts upsampling as an interpolation; where stride equals kernel size that is nearest neighbour.
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        height, width, filters, channels = shape
        kernel = np.broadcast_to(np.eye(filters, channels, dtype=np.float32), (height, width, filters, channels))
        return keras.ops.cast(kernel, dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        return {}


def channel_axis(name: str) -> int:
    """The input-channel axis of a layer's kernel: the last in a transposed convolution."""
    return 3 if name in UPSAMPLINGS else 2


def per_channel(values: np.ndarray, name: str) -> np.ndarray:
    """(channels,) values, one for each input channel of a layer, in a shape that broadcasts over its kernel."""
    return values if channel_axis(name) == 3 else values[:, None]


def _convolution(
    x: Any, filters: int, kernel: int, name: str, batch_norm: bool, *, initializer: str, synchronized: bool
) -> Any:
    layers = keras.layers
    if not batch_norm:
        return layers.Conv2D(
            filters, kernel, padding="same", activation="relu", kernel_initializer=initializer, name=name
        )(x)
    x = layers.Conv2D(filters, kernel, padding="same", kernel_initializer=initializer, name=name)(x)
    x = layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=1e-3, synchronized=synchronized, name=f"{name}_bn"
    )(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _upsampling(classes: int, factor: int, name: str) -> Any:
    # he_normal would count the kernel's area as inputs, but with stride = kernel each output sees one input pixel.
    start = RepeatPixels() if name != "conv7_upsample4" else "he_normal"
    return keras.layers.Conv2DTranspose(
        classes, factor, strides=factor, use_bias=False, kernel_initializer=start, name=name
    )

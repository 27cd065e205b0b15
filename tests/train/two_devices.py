"""Run by test_distribute.py in a process of its own, which it gives two virtual CPU devices: DATASET OUT.

Writes OUT/one.npz and OUT/two.npz, weights and losses after the same steps on one device and on two, and fits a whole
run on two devices into OUT/run; OUT/fitted.weights.h5 is what it was before it was gone on with.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from train.__main__ import main
from train.augmentation import Augmentation
from train.batches import TrainingBatches
from train.dataset import find_samples
from train.distribute import choose_devices
from train.fcn8 import Fcn8Config, fcn8, logits_model
from train.losses import ConfusionMetric, SegmentationLoss
from train.stores import PairStore

CONFIG = Fcn8Config(input_size=(32, 32), block_widths=(4, 4, 4, 4, 4), head_widths=(4, 4))
FIT = "--block-widths 4,4,4,4,4 --head-widths 4,4 --input-size 32x32 --crop-size 32x32 --rendered-share 0 --epochs 2"
# Normalisation over devices is what `steps` is for; here it would only take long to trace.
FIT += " --no-batch-norm"


def steps(dataset: Path, names: tuple[str, ...], norm: int | None, count: int) -> dict[str, np.ndarray]:
    """Loss, mean IoU and weights after `count` steps of plain SGD, whose steps are as large as the gradient."""
    keras.utils.set_random_seed(0)
    devices = choose_devices(4, names)
    pairs = PairStore(find_samples(dataset, "train"))
    # Those of the plain network with a teacher's opinions too, whose sums are shared as well.
    rng = np.random.default_rng(0)
    opinions = [rng.integers(0, 256, (16, 16, 12), np.uint8) for _ in pairs] if norm is None else []
    batches = TrainingBatches(
        pairs, size=(32, 32), batch_size=4, seed=0, parts=devices.count, opinions=opinions, augmentation=Augmentation()
    )
    weights = np.linspace(0.5, 2.0, 12).astype(np.float32)
    weights[11] = 0.0
    with devices.scope():
        model = logits_model(fcn8(CONFIG, batch_norm_from=norm, synchronized=devices.synchronized))
        model.compile(
            optimizer=keras.optimizers.SGD(0.1),
            loss=SegmentationLoss(weights, jaccard=0.5),
            metrics=[ConfusionMetric(12, 11)],
            jit_compile=False,
        )
        history = model.fit(devices.feed(batches, 0), steps_per_epoch=1, epochs=count, verbose=0, shuffle=False)
    found = {f"weight{index}": np.asarray(variable) for index, variable in enumerate(model.variables)}
    return found | {key: np.array(values) for key, values in history.history.items()}


if __name__ == "__main__":
    dataset, out = Path(sys.argv[1]), Path(sys.argv[2])
    # On JAX a batch is one array, whose mean over devices is the framework's own affair.
    # A second step after batch normalisation already multiplies the first one's rounding a hundredfold.
    for norm, count in ((None, 2), (1, 1)) if keras.backend.backend() == "tensorflow" else ((None, 2),):
        np.savez(out / f"one_{norm}.npz", **steps(dataset, ("cpu:0",), norm, count))
        np.savez(out / f"two_{norm}.npz", **steps(dataset, ("cpu:0", "cpu:1"), norm, count))
    options = [*FIT.split(), "--batch-size", "4", "--policy", "float32", "--devices", "cpu:0,cpu:1"]
    code = main(["fit", str(dataset), "--out", str(out / "run"), *options])
    # From the last checkpoint nothing is left to do, so the same network has to come out.
    (out / "run" / "model.weights.h5").rename(out / "fitted.weights.h5")
    sys.exit(code or main(["fit", str(dataset), "--out", str(out / "run"), *options, "--resume"]))

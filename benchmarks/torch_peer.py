"""The same FCN8 in torch, with the weights of the Keras run: the peer to compare with on a GPU.

Knows the network from `train.fcn8`'s configuration and its weights by layer name. Keras reads the weights on its torch
backend, so that TensorFlow is not loaded beside torch.
"""

from __future__ import annotations

import os
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import DeviceError, MissingDependencyError
from edge_seg.threads import available_threads

from .cases import Contender
from .peers import Predict


def torch_installed() -> bool:
    """Whether torch can be imported; does not import it."""
    return util.find_spec("torch") is not None


def torch_predictor(contender: Contender, batch: int) -> tuple[Predict, str]:
    """Build the contender's network on its device.

    Returns:
        A function from uint8 BGR frames (N, H, W, 3) to uint8 labels (N, H, W), and the name of the GPU or "".

    Raises:
        MissingDependencyError: torch is not installed.
        DeviceError: CUDA was asked for, and torch sees no CUDA device.
    """
    if not torch_installed():
        raise MissingDependencyError("torch is not installed. Install it: pip install torch")
    os.environ["KERAS_BACKEND"] = "torch"
    import torch

    if contender.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("torch sees no CUDA device; its CPU build is installed, or there is no GPU or driver.")
    torch.set_num_threads(available_threads())
    # The shape never changes, so cuDNN searches for the fastest convolutions only once, in warm-up.
    torch.backends.cudnn.benchmark = True
    # fp32 as for every contender: TF32 has only fp16's mantissa.
    torch.backends.cudnn.allow_tf32 = False
    network = _network(contender)
    dtype = torch.float16 if contender.precision == "fp16" else torch.float32
    network = network.eval().to(device=contender.device, dtype=dtype, memory_format=torch.channels_last)

    def labels(inputs: Any) -> Any:
        scaled = inputs.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        return network(scaled.to(dtype, memory_format=torch.channels_last)).argmax(dim=1).to(torch.uint8)

    # `labels` includes scaling and argmax, as edge_seg's graph and Keras' compiled function do.
    if contender.device != "cuda":

        def predict(frames: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return labels(torch.from_numpy(frames)).numpy()

        return predict, ""

    # Torch at its fastest: frames go through page-locked memory, and compiled it uses CUDA graphs, as edge_seg does.
    run = torch.compile(labels, mode="reduce-overhead") if contender.compiled else labels
    locked = torch.empty((batch, *contender.size, 3), dtype=torch.uint8, pin_memory=True)

    def predict_there(frames: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            locked.copy_(torch.from_numpy(frames))
            return run(locked.to(contender.device, non_blocking=True)).cpu().numpy()

    return predict_there, torch.cuda.get_device_name()


def _network(contender: Contender) -> Any:
    from train.run import load_model, open_run

    run = open_run(Path(contender.path))
    model = load_model(run, input_size=contender.size)
    weights = {layer.name: [np.asarray(w) for w in layer.get_weights()] for layer in model.layers if layer.weights}
    return torch_fcn8(weights, skip_relu=run.fcn8.skip_activation == "relu")


def torch_fcn8(weights: dict[str, list[np.ndarray]], *, skip_relu: bool) -> Any:
    """FCN8 up to its logits as a torch module, from scaled frames (N, 3, H, W) to (N, classes, H, W).

    Args:
        weights: Keras' layer name -> its arrays (kernel, then bias if it has one), as `train.fcn8` names them.
        skip_relu: whether pool3_conv and pool4_conv end in a Relu.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    from train.fcn8 import CONVOLUTIONS_PER_BLOCK

    class Fcn8(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({name: _layer(name, arrays) for name, arrays in weights.items()})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pools = {}
            for block, count in enumerate(CONVOLUTIONS_PER_BLOCK, start=1):
                for index in range(1, count + 1):
                    x = functional.relu(self.layers[f"block{block}_conv{index}"](x))
                x = pools[block] = functional.max_pool2d(x, 2)
            for name in ("conv6", "conv7"):
                x = functional.relu(self.layers[name](x))
            skips = {block: self.layers[f"pool{block}_conv"](pools[block]) for block in (3, 4)}
            if skip_relu:
                skips = {block: functional.relu(skip) for block, skip in skips.items()}
            added = self.layers["pool4_upsample2"](skips[4]) + skips[3] + self.layers["conv7_upsample4"](x)
            return self.layers["upsample8"](added)

    return Fcn8()


def _layer(name: str, arrays: list[np.ndarray]) -> Any:
    """A torch layer of one Keras convolution (HWIO to OIHW) or transposed convolution (HWOI to IOHW)."""
    import torch
    from torch import nn

    kernel = np.asarray(arrays[0], np.float32)
    size = kernel.shape[0]
    layer: nn.Conv2d | nn.ConvTranspose2d
    if "upsample" in name:
        layer = nn.ConvTranspose2d(kernel.shape[3], kernel.shape[2], size, stride=size, bias=len(arrays) > 1)
    else:
        layer = nn.Conv2d(kernel.shape[2], kernel.shape[3], size, padding=size // 2, bias=len(arrays) > 1)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(np.asarray(arrays[1], np.float32)))
    return layer

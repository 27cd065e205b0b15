"""The memory and arithmetic a graph needs at one frame size, worked out from its shapes before a session is opened.

A file of a few kilobytes can ask for terabytes, and a runtime finds out only by trying to allocate them. So every shape
is worked out here first, by the rules of the operators that `python -m export` writes and their close relatives; any
other operator is refused, which also keeps untrusted files away from rarely used parts of a runtime. Knows nothing
about runtimes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .onnxwalk import ELEMENT_BITS, MAX_RANK, Node, Tensor

# Multiply-adds a frame: 400 times the full network's at 224x224, minutes on two cores.
MAX_WORK = 2**43


class GraphError(ValueError):
    """The graph does not fit together, or has an operator that no edge_seg model has."""


class Demand(NamedTuple):
    """What one run needs.

    Attributes:
        bytes: the most that tensors alive at the same time take, stored ones included.
        work: multiply-adds, or elements written where nothing is multiplied.
    """

    bytes: int
    work: int


def demand(nodes: Sequence[Node], stored: Mapping[str, Tensor], frames: tuple[int, int, int, int]) -> Demand:
    """Work out the demand of a graph fed with `frames` (N, H, W, 3) uint8.

    Raises:
        GraphError: an unknown operator, impossible shapes, or two tensors of one name; the message says which.
    """
    known = {"": Tensor((), 0), **stored, "frames": Tensor(frames, 1)}
    last_use = {name: index for index, node in enumerate(nodes) for name in node.inputs}
    alive = sum(map(_size, known.values()))
    most, work = alive, 0
    for index, node in enumerate(nodes):
        made = _output(node, known)
        name = node.outputs[0]
        if name in known:
            raise GraphError(f"two tensors are called {name[:80]!r}")
        known[name] = made
        alive += _size(made)
        most = max(most, alive)
        work += math.prod(made.shape) * _work_each(node, known)
        for used in {name for name in node.inputs if last_use[name] == index} - stored.keys() - {""}:
            alive -= _size(known[used])
    return Demand(most, work)


def _size(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * tensor.item_bytes


def _output(node: Node, known: Mapping[str, Tensor]) -> Tensor:
    rule = _RULES.get(node.operator)
    if rule is None:
        raise GraphError(f"its operator {node.operator[:80]!r} is none that an edge_seg model has")
    if len(node.outputs) != 1 or not node.outputs[0] or not node.inputs:
        raise GraphError(f"{node.operator} with {len(node.inputs)} inputs and {len(node.outputs)} outputs")
    missing = [name for name in node.inputs if name not in known]
    if missing:
        raise GraphError(f"{node.operator} reads {missing[0][:80]!r}, which nothing before it makes")
    inputs = [known[name] for name in node.inputs]
    try:
        made = rule(node, inputs)
    except (IndexError, KeyError, ValueError, TypeError, ZeroDivisionError) as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in inputs)
        raise GraphError(f"{node.operator} cannot be applied to {shapes[:200]}") from error
    if len(made.shape) > MAX_RANK or min(made.shape, default=1) < 0:
        raise GraphError(f"{node.operator} makes a tensor of the shape {list(made.shape)[:MAX_RANK]}")
    return made


def _work_each(node: Node, known: Mapping[str, Tensor]) -> int:
    """Multiply-adds for one element of a node's output; its shape has already been checked."""
    if node.operator == "Conv":
        return max(1, math.prod(known[node.inputs[1]].shape[1:]))
    if node.operator == "ConvTranspose":
        kernel = known[node.inputs[1]].shape
        return max(1, kernel[0] * math.prod(kernel[2:]))
    if node.operator == "MatMul":
        return max(1, known[node.inputs[1]].shape[0])
    return math.prod(_wholes(node, "kernel_shape", ())) if node.operator.endswith("Pool") else 1


def _wholes(node: Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    value = node.attributes.get(name, tuple(default))
    if isinstance(value, str):
        raise TypeError(name)
    return value


def _whole(node: Node, name: str, default: int) -> int:
    (value,) = _wholes(node, name, (default,))
    return value


# The rules: node, inputs -> output. For impossible inputs they raise any of the errors that `_output` catches.


def _as_first(node: Node, inputs: list[Tensor]) -> Tensor:
    return Tensor(inputs[0].shape, inputs[0].item_bytes)


def _broadcast(node: Node, inputs: list[Tensor]) -> Tensor:
    rank = max(len(tensor.shape) for tensor in inputs)
    padded = [(1,) * (rank - len(tensor.shape)) + tensor.shape for tensor in inputs]
    shape = []
    for sides in zip(*padded, strict=True):
        different = set(sides) - {1}
        if len(different) > 1:
            raise ValueError(sides)
        shape.append(different.pop() if different else 1)
    values = None
    if node.operator == "Mul" and all(tensor.values is not None for tensor in inputs):
        first, second = (tensor.values or () for tensor in inputs)
        values = tuple(a * b for a, b in zip(first, second, strict=True))
    return Tensor(tuple(shape), max(tensor.item_bytes for tensor in inputs), values)


def _cast(node: Node, inputs: list[Tensor]) -> Tensor:
    return Tensor(inputs[0].shape, -(-ELEMENT_BITS[_whole(node, "to", 0)] // 8))


def _windows(node: Node, sides: Sequence[int], kernel: Sequence[int]) -> Iterator[int]:
    """The number of window positions along each side, as Conv and the pools count them."""
    count = len(sides)
    strides, dilations = _wholes(node, "strides", (1,) * count), _wholes(node, "dilations", (1,) * count)
    pads = _wholes(node, "pads", (0,) * 2 * count)
    automatic = node.attributes.get("auto_pad", "NOTSET")
    if min((*strides, *dilations, *kernel)) < 1 or min(pads, default=0) < 0:
        raise ValueError(kernel)
    for axis, side in enumerate(sides):
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            yield -(-side // strides[axis])
            continue
        padded = side + (pads[axis] + pads[axis + count] if automatic == "NOTSET" else 0)
        room = padded - (kernel[axis] - 1) * dilations[axis] - 1
        if room < 0:
            raise ValueError(sides)
        yield (-(-room // strides[axis]) if _whole(node, "ceil_mode", 0) else room // strides[axis]) + 1


def _conv(node: Node, inputs: list[Tensor]) -> Tensor:
    (count, channels, *sides), (made, each, *kernel) = inputs[0].shape, inputs[1].shape
    group = _whole(node, "group", 1)
    if channels != each * group or len(sides) != len(kernel) or made % group:
        raise ValueError(group)
    if _wholes(node, "kernel_shape", kernel) != tuple(kernel):
        raise ValueError(kernel)
    return Tensor((count, made, *_windows(node, sides, kernel)), inputs[0].item_bytes)


def _conv_transpose(node: Node, inputs: list[Tensor]) -> Tensor:
    (count, channels, *sides), (taken, each, *kernel) = inputs[0].shape, inputs[1].shape
    rank, group = len(sides), _whole(node, "group", 1)
    if channels != taken or len(kernel) != rank or group < 1 or "output_shape" in node.attributes:
        raise ValueError(group)
    strides, dilations = _wholes(node, "strides", (1,) * rank), _wholes(node, "dilations", (1,) * rank)
    more, pads = _wholes(node, "output_padding", (0,) * rank), _wholes(node, "pads", (0,) * 2 * rank)
    if min((*strides, *dilations)) < 1 or min((*more, *pads)) < 0:
        raise ValueError(strides)
    # Padding only takes away: without it the size is an upper bound for every `auto_pad`.
    made = [
        (sides[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 + more[axis]
        for axis in range(rank)
    ]
    if node.attributes.get("auto_pad", "NOTSET") == "NOTSET":
        made = [side - pads[axis] - pads[axis + rank] for axis, side in enumerate(made)]
    return Tensor((count, each * group, *made), inputs[0].item_bytes)


def _product(node: Node, inputs: list[Tensor]) -> Tensor:
    first, second = inputs
    (*places, inner), (taken, made) = first.shape, second.shape
    if inner != taken or not places:
        raise ValueError(taken)
    return Tensor((*places, made), first.item_bytes)


def _pool(node: Node, inputs: list[Tensor]) -> Tensor:
    count, channels, *sides = inputs[0].shape
    kernel = _wholes(node, "kernel_shape", ())
    if len(kernel) != len(sides):
        raise ValueError(kernel)
    return Tensor((count, channels, *_windows(node, sides, kernel)), inputs[0].item_bytes)


def _pool_all(node: Node, inputs: list[Tensor]) -> Tensor:
    count, channels, *sides = inputs[0].shape
    if "kernel_shape" in node.attributes:
        raise ValueError(sides)
    return Tensor((count, channels, *(1 for _ in sides)), inputs[0].item_bytes)


def _transpose(node: Node, inputs: list[Tensor]) -> Tensor:
    shape = inputs[0].shape
    order = _wholes(node, "perm", range(len(shape))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise ValueError(order)
    return Tensor(tuple(shape[axis] for axis in order), inputs[0].item_bytes)


def _depth_to_space(node: Node, inputs: list[Tensor]) -> Tensor:
    (count, channels, height, width), block = inputs[0].shape, _whole(node, "blocksize", 0)
    if block < 1 or channels % block**2:
        raise ValueError(block)
    return Tensor((count, channels // block**2, height * block, width * block), inputs[0].item_bytes)


def _reduce(item_bytes: int | None) -> Callable[[Node, list[Tensor]], Tensor]:
    def rule(node: Node, inputs: list[Tensor]) -> Tensor:
        shape = inputs[0].shape
        if len(inputs) > 1:
            axes = inputs[1].values
        else:
            axes = _wholes(node, "axis" if node.operator == "ArgMax" else "axes", (0,))
        if not axes:
            raise ValueError(axes)
        gone = {axis + len(shape) if axis < 0 else axis for axis in axes}
        if min(gone) < 0 or max(gone) >= len(shape):
            raise ValueError(axes)
        keep = _whole(node, "keepdims", 1)
        sides = [1 if axis in gone else side for axis, side in enumerate(shape) if keep or axis not in gone]
        return Tensor(tuple(sides), item_bytes or inputs[0].item_bytes)

    return rule


def _pad(node: Node, inputs: list[Tensor]) -> Tensor:
    shape, pads = inputs[0].shape, inputs[1].values
    if pads is None or len(pads) != 2 * len(shape) or min(pads) < 0 or len(inputs) > 3:
        raise ValueError(pads)
    sides = (side + pads[axis] + pads[axis + len(shape)] for axis, side in enumerate(shape))
    return Tensor(tuple(sides), inputs[0].item_bytes)


def _reshape(node: Node, inputs: list[Tensor]) -> Tensor:
    source, asked = inputs[0].shape, inputs[1].values
    if asked is None or min(asked, default=0) < -1:
        raise ValueError(asked)
    copied = not _whole(node, "allowzero", 0)
    sides = [source[axis] if side == 0 and copied else side for axis, side in enumerate(asked)]
    if -1 in sides:
        sides[sides.index(-1)] = math.prod(source) // -math.prod(sides)
    if math.prod(sides) != math.prod(source):
        raise ValueError(sides)
    return Tensor(tuple(sides), inputs[0].item_bytes)


def _shape(node: Node, inputs: list[Tensor]) -> Tensor:
    shape = inputs[0].shape
    sides = shape[_whole(node, "start", 0) : _whole(node, "end", len(shape))]
    return Tensor((len(sides),), 8, sides)


def _concat(node: Node, inputs: list[Tensor]) -> Tensor:
    rank = len(inputs[0].shape)
    axis = range(rank)[_whole(node, "axis", 0)]
    if len({(*tensor.shape[:axis], None, *tensor.shape[axis + 1 :]) for tensor in inputs}) != 1:
        raise ValueError(axis)
    shape = list(inputs[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in inputs)
    few = all(tensor.values is not None for tensor in inputs)
    values = tuple(value for tensor in inputs for value in tensor.values or ()) if few else None
    return Tensor(tuple(shape), max(tensor.item_bytes for tensor in inputs), values)


_RULES: dict[str, Callable[[Node, list[Tensor]], Tensor]] = {
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mul", "Sub"), _broadcast),
    **dict.fromkeys(
        (
            "BatchNormalization",
            "Clip",
            "HardSigmoid",
            "HardSwish",
            "Identity",
            "LeakyRelu",
            "Relu",
            "Sigmoid",
            "Softmax",
        ),
        _as_first,
    ),
    "ArgMax": _reduce(8),
    "AveragePool": _pool,
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "DequantizeLinear": lambda node, inputs: Tensor(inputs[0].shape, 4),
    "GlobalAveragePool": _pool_all,
    "MatMul": _product,
    "MaxPool": _pool,
    "Pad": _pad,
    "QuantizeLinear": lambda node, inputs: Tensor(inputs[0].shape, inputs[2].item_bytes if len(inputs) > 2 else 1),
    "ReduceMax": _reduce(None),
    "Reshape": _reshape,
    "Shape": _shape,
    "Transpose": _transpose,
}
OPERATORS = frozenset(_RULES)

"""Which devices a training runs on, and what changes when there are several.

Knows devices, hosts and the two frameworks' own ways of using them (`tf.distribute` on TensorFlow, `keras.distribution`
on JAX); knows nothing of networks, recipes or files of a run. A batch is always the global one: each device takes an
equal, consecutive share of it, and the result of a step does not depend on the number of devices.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras

from edge_seg.errors import ConfigurationError

from .batches import TrainingBatches

# Read by `keras.distribution.initialize`: the number of hosts that train together.
JAX_HOSTS = "KERAS_DISTRIBUTION_NUM_PROCESSES"
JAX_WAY = (
    f"KERAS_BACKEND=jax, KERAS_DISTRIBUTION_JOB_ADDRESSES=FIRST_HOST:PORT, {JAX_HOSTS}=HOSTS and "
    "KERAS_DISTRIBUTION_PROCESS_ID=0 on the first host, 1 on the next"
)


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What a training runs on.

    Attributes:
        names: this host's devices, as "gpu:0"; empty for the framework's own choice of one.
        hosts, host: how many hosts train together, and the index of this one.
        strategy: the framework's own object; None where there is one device in all.
    """

    names: tuple[str, ...] = ()
    hosts: int = 1
    host: int = 0
    strategy: Any = None

    @property
    def count(self) -> int:
        """Number of devices on all hosts together."""
        return self.hosts * max(1, len(self.names))

    @property
    def chief(self) -> bool:
        """Whether this host is the one that writes the run."""
        return self.host == 0

    @property
    def synchronized(self) -> bool:
        """Whether batch normalisation must be told to average over devices; on JAX a batch is one array anyway."""
        return self.strategy is not None and keras.backend.backend() == "tensorflow"

    def scope(self) -> AbstractContextManager[Any]:
        """Context in which networks are built, compiled and fitted for these devices."""
        if self.strategy is not None:
            return self.strategy.scope()
        return keras.device(self.names[0]) if self.names else nullcontext()

    def feed(self, batches: TrainingBatches, first_epoch: int) -> Any:
        """What `model.fit` reads: batches from an epoch on, without end, each device taking its own share."""
        if self.strategy is None:
            return batches.stream(first_epoch)
        if keras.backend.backend() == "jax":
            return self._shares(batches.stream(first_epoch), self.hosts, range(self.host, self.host + 1))
        return self.strategy.distribute_datasets_from_function(lambda _: self._dataset(batches, first_epoch))

    @contextmanager
    def folder(self, out: Path) -> Iterator[Path]:
        """Where this host writes: the run's folder on the chief, a temporary folder on every other host.

        All hosts have to do all the work, since reading a variable can be a computation that needs every host.
        """
        if self.chief:
            yield out
            return
        with tempfile.TemporaryDirectory(prefix="edge_seg_host_") as folder:
            yield Path(folder)

    def __str__(self) -> str:
        names = ", ".join(self.names) or "one device"
        return names if self.hosts == 1 else f"host {self.host + 1} of {self.hosts}: {names}"

    def _dataset(self, batches: TrainingBatches, first_epoch: int) -> Any:
        # Not a plain generator: Keras takes batches from it before building a network and never trains on them.
        # A dataset begins anew.
        import tensorflow as tf

        signature = (
            tf.TensorSpec((None, *batches.size, 3), tf.float32),
            tf.TensorSpec((None, *batches.target_shape), tf.uint8),
        )
        return tf.data.Dataset.from_generator(
            lambda: self._shares(batches.stream(first_epoch), self.count, range(self.count)),
            output_signature=signature,
        ).prefetch(2 * self.count)

    @staticmethod
    def _shares(stream: Iterator[Any], parts: int, own: range) -> Iterator[Any]:
        """Cut each batch into `parts` equal parts and yield those whose indices are in `own`, one after the other."""
        for batch in stream:
            length = len(batch[0]) // parts
            for part in own:
                yield tuple(array[part * length : (part + 1) * length] for array in batch)


@dataclass(frozen=True)
class Hosts:
    """How many hosts train together, and the index of this one, counted from 0."""

    count: int = 1
    index: int = 0


@cache
def join_hosts() -> Hosts:
    """Connect to the other hosts that the environment names, if any. Waits for them; call before computing anything.

    Raises:
        ConfigurationError: an environment variable cannot be parsed, the hosts cannot connect, or the backend cannot
            train on several.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow" and _tensorflow_hosts() > 1:
        raise ConfigurationError(
            f"TF_CONFIG names {_tensorflow_hosts()} hosts, but Keras 3 cannot fit under TensorFlow's "
            f"MultiWorkerMirroredStrategy (keras-team/keras issue 20585). Unset it and set {JAX_WAY}."
        )
    if backend != "jax" or os.environ.get(JAX_HOSTS, "1") == "1":
        return Hosts()
    import jax

    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"{JAX_HOSTS} is {os.environ[JAX_HOSTS]}, but the hosts did not meet ({str(error).splitlines()[0]}). "
            f"Each of them needs {JAX_WAY}."
        ) from error
    return Hosts(jax.process_count(), jax.process_index())


def _tensorflow_hosts() -> int:
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        return sum(len(cluster.get(job, ())) for job in ("chief", "worker"))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"TF_CONFIG cannot be read ({error}); unset it to train on this host.") from error


def choose_devices(batch_size: int, asked: Sequence[str] = ()) -> Devices:
    """All visible GPUs of all hosts, or those that are asked for, as ("gpu:0", "gpu:1").

    On one host, only as many GPUs take part as can share the batch equally; a line on stderr says if some are left out.

    Raises:
        ConfigurationError: a device does not exist, or the batch cannot be shared equally among those asked for.
    """
    hosts = join_hosts()
    if hosts.count > 1:
        return _on_hosts(hosts, batch_size, asked)
    names = tuple(name.lower() for name in asked)
    missing = [name for name in names if name not in visible_devices()]
    if missing:
        raise ConfigurationError(
            f"--devices: no {', '.join(missing)} here for {keras.backend.backend()}; "
            f"there are {', '.join(visible_devices())}."
        )
    names = names or tuple(name for name in visible_devices() if not name.startswith("cpu"))
    shared = max((count for count in range(1, len(names) + 1) if batch_size % count == 0), default=0)
    if shared < len(names):
        text = f"a batch of {batch_size} cannot be shared equally among {len(names)} devices"
        if asked:
            raise ConfigurationError(f"--devices: {text}; give a --batch-size that is a multiple of {len(names)}.")
        print(f"note: {text}: {shared} of them train", file=sys.stderr)
    if shared <= 1:
        return Devices(names=names if asked else ())
    return Devices(names=names[:shared], strategy=_strategy(names[:shared]))


def visible_devices() -> tuple[str, ...]:
    """The backend's devices on this host as "cpu:0" or "gpu:1", the accelerators last; empty on other backends."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tuple(f"{device.device_type.lower()}:{device.name.rsplit(':', 1)[-1]}" for device in _logical(tf))
    if keras.backend.backend() == "jax":
        import jax

        found = [*jax.local_devices(backend="cpu"), *jax.local_devices()]
        return tuple(dict.fromkeys(f"{device.platform}:{device.id}" for device in found))
    return ()


def summed_over_devices(values: list[Any]) -> list[Any]:
    """Each value summed over the devices of a step; unchanged where a step sees the whole batch anyway.

    Differentiable. Lets a loss that is not a mean over images be the whole batch's, not a mean of the devices' shares.
    """
    context = _replica_context()
    if context is None:
        return values
    import tensorflow as tf

    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, values))


def device_share(loss: Any) -> Any:
    """A device's part of a loss that every device computes whole, since the gradients of all devices are summed.

    Keras does this itself for losses that are a mean over images, but not for a scalar.
    """
    context = _replica_context()
    return loss if context is None else loss / context.num_replicas_in_sync


def _on_hosts(hosts: Hosts, batch_size: int, asked: Sequence[str]) -> Devices:
    if asked:
        raise ConfigurationError(
            "--devices chooses among the devices of one host; of several hosts each gives all it has. "
            "Hide some with CUDA_VISIBLE_DEVICES instead."
        )
    local = visible_devices()
    names = tuple(name for name in local if not name.startswith("cpu")) or local
    strategy = _strategy(tuple(keras.distribution.list_devices()))
    found = Devices(names=names, hosts=hosts.count, host=hosts.index, strategy=strategy)
    if batch_size % found.count:
        raise ConfigurationError(
            f"A batch of {batch_size} cannot be shared equally among {found.count} devices on {found.hosts} hosts; "
            f"give a --batch-size that is a multiple of {found.count}."
        )
    return found


@cache
def _strategy(names: tuple[str, ...]) -> Any:
    # One a process: a second strategy on the same devices would reuse the names of the first one's collectives.
    if keras.backend.backend() == "jax":
        return keras.distribution.DataParallel(devices=list(names), auto_shard_dataset=False)
    import tensorflow as tf

    return tf.distribute.MirroredStrategy([f"/{name.upper()}" for name in names])


def _logical(tf: Any) -> list[Any]:
    return [device for kind in ("CPU", "GPU") for device in tf.config.list_logical_devices(kind)]


def _replica_context() -> Any:
    """TensorFlow's view of one device among several, inside a step; None elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None

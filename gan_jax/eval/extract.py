"""The feature pass: runs images through one or more networks, once, and collects the outputs that the metrics need."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, UInt8

from gan_jax.host import put, replacing
from gan_jax.types import InvalidInputError

Apply = Callable[[PyTree, Array], dict[str, Array]]
Progress = Callable[[int, int], None]  # images done, total number of images


class Extractor(NamedTuple):
    """A network with its weights.

    Attributes:
      apply: `(params, images) -> {'features': [b, d], ...}`, possibly with `'logits'`. The images are uint8, in the
        form that `takes` names.
      params: weights of the network.
      record: description of the network and its weights; part of the protocol of every metric value.
      takes: form of the images. `images`: `[b, h, w, c]`; clips are passed as their frames. `clips`: `[b, t, h, w, c]`.
        `pairs`: an output and its target, `[b, 2, ...]`.
    """

    apply: Apply
    params: PyTree
    record: dict[str, Any]
    takes: str = "images"


class Outputs(NamedTuple):
    """Outputs of a network for a set of images.

    Attributes:
      features: features, `[n, d]`, float32.
      logits: logits, `[n, classes]`, float32; None if the network has none.
    """

    features: Float[np.ndarray, "n d"]
    logits: Float[np.ndarray, "n c"] | None = None

    def first(self, count: int) -> "Outputs":
        """Returns the outputs of the first `count` images."""
        return Outputs(self.features[:count], None if self.logits is None else self.logits[:count])


def extract(
    extractors: Mapping[str, Extractor],
    images: Iterable[UInt8[np.ndarray, "_ *example"]],
    count: int,
    *,
    mesh: Mesh,
    batch_size: int = 64,
    paired: bool = False,
    progress: Progress | None = None,
) -> dict[str, Outputs]:
    """Runs images through networks.

    Every process of a run must call it with the same images. Each device computes its part of every batch.

    Args:
      extractors: networks by name.
      images: parts of any length, with `count` or more images in total; further images are not used. An image may be a
        clip.
      count: number of images to run.
      mesh: mesh of the devices to run on.
      batch_size: number of images per batch, rounded up to a multiple of the number of devices. The last batch is
        padded and the outputs of the padding are dropped, so the batch size changes no value beyond rounding.
      paired: whether each example is an output and its target, `[2, ...]`; networks that do not take pairs get the
        output alone.
      progress: function that is called after every batch with the number of images done and the total.

    Returns:
      The outputs of exactly `count` images, in order, for each network. For a network of images, a clip gives one row
      per frame.

    Raises:
      InvalidInputError: if there are fewer images than `count`, or a network does not take examples of this shape.
    """
    if count < 1 or batch_size < 1:
        raise InvalidInputError(f"count={count}, batch_size={batch_size}: expected 1 or more")
    size = -(-batch_size // mesh.size) * mesh.size
    along = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    run = {name: _on_each_device(network.apply, mesh, network.takes, paired) for name, network in extractors.items()}
    params = {name: placed(network, mesh).params for name, network in extractors.items()}
    parts: dict[str, list[Outputs]] = {name: [] for name in extractors}
    done = 0
    for batch, valid in _batches(images, count, size):
        placed_batch = put(batch, along)
        outputs = {name: run[name](params[name], placed_batch) for name in extractors}
        for name, found in outputs.items():
            logits = found.get("logits")
            parts[name].append(Outputs(np.asarray(found["features"]), None if logits is None else np.asarray(logits)))
        done += valid
        if progress is not None:
            progress(done, count)
    # Rows of output per image: more than one where a clip was run frame by frame.
    rows = {name: len(found[0].features) // size for name, found in parts.items()}
    return {name: _joined(found).first(count * rows[name]) for name, found in parts.items()}


def lower(network: Extractor, images: jax.ShapeDtypeStruct, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers the feature pass of a network from shapes alone, so that the devices of the mesh need not be there.

    Args:
      network: network, with its weights or their shapes.
      images: shape of a batch of images, whose number is a multiple of the number of devices.
      mesh: devices to compile for.

    Returns:
      The program of one batch before compilation.
    """
    everywhere, along = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), network.params)
    run: Any = _on_each_device(network.apply, mesh, network.takes, network.takes == "pairs")
    return run.lower(params, jax.ShapeDtypeStruct(images.shape, np.uint8, sharding=along))


def placed(network: Extractor, mesh: Mesh) -> Extractor:
    """Returns the network with its weights on every device of the mesh, so that feature passes do not transfer them."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return network._replace(params=jax.tree.map(lambda x: put(x, everywhere), network.params))


@functools.lru_cache(maxsize=16)
def _on_each_device(apply: Apply, mesh: Mesh, takes: str, paired: bool) -> Apply:
    """Compiles a network to run separately on each device, so that its values are those of one device.

    The outputs are replicated to all devices. The cache saves a compilation on every further feature pass.
    """
    along = PartitionSpec(mesh.axis_names)

    def own(params: PyTree, examples: Array) -> dict[str, Array]:
        images = examples[:, 0] if paired and takes != "pairs" else examples
        if takes == "images" and images.ndim == 5:
            images = images.reshape(-1, *images.shape[2:])
        expected = {"images": 4, "clips": 5}.get(takes, images.ndim)
        if images.ndim != expected or (takes == "pairs" and not paired):
            raise InvalidInputError(f"a network of {takes} got examples of shape {examples.shape[1:]}")
        return apply(params, images)

    mapped = jax.shard_map(own, mesh=mesh, in_specs=(PartitionSpec(), along), out_specs=along)
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, PartitionSpec()))


def keep(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file atomically, even if other processes write the same file, and creates its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "wb", shared=True) as file:
        np.savez(file, allow_pickle=False, **arrays)


def _joined(parts: list[Outputs]) -> Outputs:
    logits = [part.logits for part in parts if part.logits is not None]
    return Outputs(np.concatenate([part.features for part in parts]), np.concatenate(logits) if logits else None)


def _batches(images: Iterable[np.ndarray], count: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields batches of one size with the number of their images that count: all, except in the last batch."""
    kept: list[np.ndarray] = []
    waiting, left = 0, count
    for part in images:
        kept.append(part)
        waiting += len(part)
        while waiting >= size and left:
            whole = np.concatenate(kept)
            valid = min(size, left)
            yield whole[:size], valid
            kept, waiting, left = [whole[size:]], waiting - size, left - valid
        if not left:
            return
        if waiting >= left:
            break
    whole = np.concatenate(kept) if kept else np.zeros(0)
    if len(whole) < left:
        raise InvalidInputError(f"{count - left + len(whole)} images: expected {count}")
    padding = np.zeros((size - left, *whole.shape[1:]), whole.dtype)
    yield np.concatenate([whole[:left], padding]), left

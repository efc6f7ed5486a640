"""Sources built from other sources: pairs, unpaired domains, renamed arrays and random transforms."""

import dataclasses
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.data import order
from gan_jax.data.sources import DATA_KEY, Feed, Source
from gan_jax.types import Batch, InvalidInputError, PRNGKey, Spec

Transform = Callable[[PRNGKey, Batch], Batch]


@dataclasses.dataclass(frozen=True)
class Combined:
    """Several sources combined into one: the `'real'` of each source is renamed, `'label'` keeps its name.

    Attributes:
      name: name of the combined source in the log.
      sources: the sources, by the name that their images have in a batch.
      paired: whether example i of each source belongs to example i of the others. If not, the sources are shuffled
        independently.
    """

    name: str
    sources: Mapping[str, Source]
    paired: bool

    @property
    def by_index(self) -> bool:
        return self.paired

    @property
    def num_classes(self) -> int | None:
        return next((source.num_classes for source in self.sources.values() if source.num_classes is not None), None)

    @property
    def class_names(self) -> tuple[str, ...]:
        return next((source.class_names for source in self.sources.values() if source.num_classes is not None), ())

    @property
    def spec(self) -> Spec:
        return self._named({name: source.spec for name, source in self.sources.items()})

    def _named(self, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {(name if key == "real" else key): value for name, part in parts.items() for key, value in part.items()}

    def summary(self) -> str:
        how = "in pairs" if self.paired else "drawn independently of each other"
        parts = [f"{name}: {source.summary()}" for name, source in self.sources.items()]
        return "\n".join([f"{self.name}: {', '.join(self.sources)}, {how}", *parts])

    def fingerprint(self) -> str:
        """Returns a hash of the sources' fingerprints."""
        parts = [f"{name} {source.fingerprint()}" for name, source in sorted(self.sources.items())]
        return hashlib.sha256("\n".join([str(self.paired), *parts]).encode()).hexdigest()

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        feeds = {
            name: source.feed(seed if self.paired else _own_seed(seed, name), draws, batch_size, local_indices)
            for name, source in self.sources.items()
        }
        if self.paired:  # one seed gives one order; the keys of transforms still differ
            feeds = {name: feed._replace(data=_own_keys(feed.data, name)) for name, feed in feeds.items()}

        def stream(start: int, length: int) -> Iterator[dict[str, Any]]:
            streams = {name: feed.stream(start, length) for name, feed in feeds.items()}
            while True:
                yield {name: next(each) for name, each in streams.items()}

        def fetch(data: Any, inputs: Any, step: jax.Array) -> Batch:
            return self._named({name: feed.fetch(data[name], inputs[name], step) for name, feed in feeds.items()})

        def input_spec(length: int) -> dict[str, Any]:
            return {name: feed.input_spec(length) for name, feed in feeds.items()}

        return Feed({name: feed.data for name, feed in feeds.items()}, input_spec, fetch, stream)

    def __len__(self) -> int:
        """Returns the length of the longest source, which defines an epoch."""
        return max(len(source) for source in self.sources.values())

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples at the indices; shorter sources start over from their beginning."""
        return self._named({name: source.read(indices % len(source)) for name, source in self.sources.items()})


def _own_keys(data: Any, name: str) -> Any:
    """Folds a name into all random keys of a feed's data."""
    number = zlib.crc32(name.encode())

    def fold(x: Any) -> Any:
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.fold_in(x, number) if is_key else x

    return jax.tree.map(fold, data)


def _own_seed(seed: int, name: str) -> int:
    # 56 bits: `Stacked` stores the channel in the bits above.
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7])


def _check(sources: Mapping[str, Source]) -> None:
    labelled = [name for name, source in sources.items() if source.num_classes is not None]
    if len(sources) < 2 or "real" in sources or "label" in sources or len(labelled) > 1:
        raise InvalidInputError(
            f"sources {', '.join(sources)}, with labels in {', '.join(labelled) or 'none'}: expected two or more "
            "sources, labels in one at most (use labels=False for the others), and other names than 'real' and 'label'"
        )


def zip_sources(**sources: Source) -> Combined:
    """Pairs sources: example i of each belongs to example i of the others, and they stay together when shuffled.

    Random transforms of a single source draw for it alone. For transforms that are alike for both of a pair, such as
    crops, transform the pair: `transformed(zip_sources(...), crop(64))`. On the host there is no pair to change, so
    `Records(change=)` of all sources gets the same random numbers for examples of one pair.

    Args:
      **sources: sources of the same length, whose examples are read by index; `zip_sources(a=photos, b=drawings)`
        delivers `'a'` and `'b'`.

    Returns:
      The paired source.

    Raises:
      InvalidInputError: if the lengths differ, or if a source is not read by index.
    """
    _check(sources)
    lengths = {name: len(source) for name, source in sources.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(
            f"pairs of sources with {', '.join(f'{n:,} ({name})' for name, n in lengths.items())} examples: expected "
            "the same length; for domains without pairs use unpaired(...)"
        )
    loose = [name for name, source in sources.items() if not getattr(source, "by_index", False)]
    if loose:
        raise InvalidInputError(f"{', '.join(loose)}: examples are not read by index, so they cannot be paired")
    return Combined(" + ".join(source.name for source in sources.values()), sources, paired=True)


def unpaired(**sources: Source) -> Combined:
    """Combines domains without pairs: each source is shuffled independently; the longest one defines an epoch.

    Args:
      **sources: sources of any lengths; `unpaired(a=horses, b=zebras)` delivers `'a'` and `'b'`.

    Returns:
      The combined source.
    """
    _check(sources)
    return Combined(" | ".join(source.name for source in sources.values()), sources, paired=False)


@dataclasses.dataclass(frozen=True)
class Renamed:
    """A source whose arrays have new names; arrays without a new name are dropped.

    Attributes:
      source: source of the examples.
      names: for each delivered array, by its new name, the name that it has in `source`.
    """

    source: Source
    names: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def num_classes(self) -> int | None:
        return self.source.num_classes if "label" in self.names else None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names if "label" in self.names else ()

    @property
    def by_index(self) -> bool:
        return getattr(self.source, "by_index", False)

    @property
    def spec(self) -> Spec:
        return self._named(self.source.spec)

    def _named(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {new: arrays[old] for new, old in self.names.items()}

    def summary(self) -> str:
        """Returns the summary of the source, followed by the names."""
        return f"{self.source.summary()}\n  as {', '.join(f'{new} ({old})' for new, old in self.names.items())}"

    def fingerprint(self) -> str:
        """Returns a hash of the source's fingerprint and of the names."""
        names = [f"{new} {old}" for new, old in sorted(self.names.items())]
        return hashlib.sha256("\n".join([self.source.fingerprint(), *names]).encode()).hexdigest()

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        inner = self.source.feed(seed, draws, batch_size, local_indices)

        def fetch(data: Any, inputs: Any, step: jax.Array) -> Batch:
            return self._named(inner.fetch(data, inputs, step))

        return inner._replace(fetch=fetch)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples at the indices."""
        return self._named(self.source.read(indices))


def renamed(source: Source, **names: str) -> Renamed:
    """Renames the arrays of a source.

    Args:
      source: source of the examples.
      **names: old names by new names: `renamed(pairs, inputs="a", target="b")` delivers the array `'a'` of `pairs` as
        `'inputs'`, `'b'` as `'target'`, and nothing else. One array may be delivered under several names.

    Returns:
      The renamed source.

    Raises:
      InvalidInputError: if no name is given, or if the source has no array of an old name.
    """
    missing = [old for old in names.values() if old not in source.spec]
    if missing or not names:
        raise InvalidInputError(f"renamed({names}): {source.name} has {', '.join(source.spec)}")
    return Renamed(source, names)


@dataclasses.dataclass(frozen=True)
class Transformed:
    """A source with random transforms, which run inside the compiled step.

    Attributes:
      source: source of the examples.
      transforms: the transforms, applied in order, each with its own key.
    """

    source: Source
    transforms: Sequence[Transform]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def num_classes(self) -> int | None:
        return self.source.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def by_index(self) -> bool:
        return getattr(self.source, "by_index", False)

    @property
    def spec(self) -> Spec:
        one = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in self.source.spec.items()}
        made = jax.eval_shape(lambda batch: self._change(jax.random.key(0), batch), one)
        return {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in made.items()}

    def _change(self, key: PRNGKey, batch: Batch) -> Batch:
        for transform, own in zip(self.transforms, jax.random.split(key, len(self.transforms)), strict=True):
            batch = transform(own, batch)
        return batch

    def summary(self) -> str:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in self.spec.items())
        return f"{self.source.summary()}\n  changed at random in the step, to {shapes}"

    def fingerprint(self) -> str:
        """Returns a hash of the source's fingerprint and of the transformed shapes and dtypes."""
        shapes = [f"{name} {x.shape} {x.dtype}" for name, x in sorted(self.spec.items())]
        return hashlib.sha256("\n".join([self.source.fingerprint(), *shapes]).encode()).hexdigest()

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        inner = self.source.feed(seed, draws, batch_size, local_indices)

        def fetch(data: Any, inputs: Any, step: jax.Array) -> Batch:
            key, own = data
            keys = jax.random.split(jax.random.fold_in(key, step), draws)
            return jax.vmap(self._change)(keys, inner.fetch(own, inputs, step))

        # DATA_KEY itself belongs to `Draws`; the depth separates the keys of nested transformed sources.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), DATA_KEY + 1), _depth(self.source))
        return Feed((key, inner.data), inner.input_spec, fetch, inner.stream)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the stored examples, without the transforms."""
        return self.source.read(indices)


def _depth(source: Any) -> int:
    """Returns the number of nested transformed sources in a source, itself included."""
    inner = [source.source] if isinstance(source, Renamed | Transformed) else []
    inner = list(source.sources.values()) if isinstance(source, Combined) else inner
    return isinstance(source, Transformed) + max(map(_depth, inner), default=0)


def transformed(source: Source, *transforms: Transform) -> Transformed:
    """Adds random transforms to a source. They run in the compiled step; batches stay a function of (seed, step).

    Args:
      source: source of the examples.
      *transforms: functions `(key, batch) -> batch` on arrays `[b, ...]`: `flip`, `crop`, `clip`, or your own.

    Returns:
      The transformed source.
    """
    return Transformed(source, transforms)


def _names(names: Sequence[str], batch: Batch) -> list[str]:
    missing = [name for name in names if name not in batch]
    if missing:
        raise InvalidInputError(f"{', '.join(missing)}: not in the batch, which has {', '.join(batch)}")
    return list(names) or [name for name in batch if name != "label"]


def flip(*names: str, probability: float = 0.5) -> Transform:
    """Returns a transform that mirrors examples left to right at random; all named arrays of an example alike.

    Args:
      *names: names of arrays `[b, ..., h, w, c]` in the batch, or maps of classes `[b, h, w]`; by default all but
        labels.
      probability: probability that an example is mirrored.

    Returns:
      The transform.
    """

    def change(key: PRNGKey, batch: Batch) -> Batch:
        chosen = _names(names, batch)
        turned = jax.random.bernoulli(key, probability, (batch[chosen[0]].shape[0],))
        return batch | {
            name: jnp.where(turned.reshape(-1, *(1,) * (batch[name].ndim - 1)), _mirrored(batch[name]), batch[name])
            for name in chosen
        }

    return change


def _mirrored(images: jax.Array) -> jax.Array:
    """Mirrors images `[..., h, w, c]`, or maps of classes: integers `[b, h, w]`."""
    is_map = images.ndim == 3 and jnp.issubdtype(images.dtype, jnp.integer)
    return images[..., ::-1] if is_map else images[..., ::-1, :]


def crop(size: int, *names: str) -> Transform:
    """Returns a transform that cuts out a square at a random position, the same for all named images of an example.

    Args:
      size: height and width of the square.
      *names: names of arrays `[b, h, w, c]`, or `[b, h, w]`, of equal height and width; all but labels by default.

    Returns:
      The transform. It raises `InvalidInputError` if the images are smaller than the square or differ in size.
    """

    def change(key: PRNGKey, batch: Batch) -> Batch:
        chosen = _names(names, batch)
        sizes = {batch[name].shape[1:3] for name in chosen}
        if len(sizes) > 1 or min(next(iter(sizes))) < size:
            raise InvalidInputError(f"crop({size}) of images of {sorted(sizes)}: expected one size, at least {size}")
        [(height, width)] = sizes
        b = batch[chosen[0]].shape[0]
        tops, lefts = (
            jax.random.randint(own, (b,), 0, extent - size + 1)
            for own, extent in zip(jax.random.split(key), (height, width), strict=True)
        )

        def cut(image: jax.Array, top: jax.Array, left: jax.Array) -> jax.Array:
            rest = image.shape[2:]
            return jax.lax.dynamic_slice(image, (top, left, *(0 for _ in rest)), (size, size, *rest))

        return batch | {name: jax.vmap(cut)(batch[name], tops, lefts) for name in chosen}

    return change


def clip(frames: int, *names: str, every: int = 1) -> Transform:
    """Returns a transform that cuts a clip out of each video, starting at a random frame.

    Args:
      frames: number of frames of the clip.
      *names: names of arrays `[b, t, h, w, c]` of equal length; all but labels by default.
      every: distance between the frames taken; k takes every k-th frame.

    Returns:
      The transform. It raises `InvalidInputError` if the videos are too short.
    """
    span = (frames - 1) * every + 1

    def change(key: PRNGKey, batch: Batch) -> Batch:
        chosen = _names(names, batch)
        length = min(batch[name].shape[1] for name in chosen)
        if length < span:
            raise InvalidInputError(f"clip({frames}, every={every}) takes {span} frames: the videos have {length}")
        starts = jax.random.randint(key, (batch[chosen[0]].shape[0],), 0, length - span + 1)

        def cut(video: jax.Array, start: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(video, start, span)[::every]

        return batch | {name: jax.vmap(cut)(batch[name], starts) for name in chosen}

    return change

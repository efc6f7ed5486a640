"""What a data source is: in memory and gathered on the device, read from storage, or drawn from a distribution.

Every source has `name`, `spec` (one example as the game sees it), `num_classes` (None without labels), `class_names`
(empty where nobody named them), `summary()` for the person who reads the log, `fingerprint()`, which tells two data
sets apart, and `feed(...)`, which says how its batches get into the compiled step.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.data import order
from gan_jax.host import from_uint8
from gan_jax.types import Batch, InvalidInputError, PRNGKey, Spec

Change = Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]
DATA_KEY = 0xFFFFDA7A  # above every int32 step, so that no iteration has this key


class Feed(NamedTuple):
    """How batches get into the compiled step.

    Attributes:
      data: constant arrays, replicated on every device.
      input_spec: `length -> shapes and dtypes` of what `stream` yields.
      fetch: `(data, inputs, step) -> batches` with leaves `[draws, b, ...]`; runs inside the step.
      stream: `(start, length) -> iterator` of what the host sends for `length` iterations at a time, from iteration
        `start` on: numpy arrays `[length, draws, b, ...]`, or None where nothing is sent.
    """

    data: Any
    input_spec: Callable[[int], Any]
    fetch: Callable[[Any, Any, jax.Array], Batch]
    stream: Callable[[int, int], Iterator[Any]]


class Reader(Protocol):
    """Random access to stored examples."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples at the indices, decoded and stacked."""


class Source(Protocol):
    """See the module."""

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def num_classes(self) -> int | None:
        """The number of classes of `'label'`; None without labels."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ...; empty where they have none."""

    @property
    def spec(self) -> Spec:
        """Shape and dtype of one example, as the game sees it."""

    def summary(self) -> str:
        """Count, shape, range and labels, for the log."""

    def fingerprint(self) -> str:
        """A hash of what the data are, to notice that a run is continued on others, or that processes read others."""

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        """The feed of a run; `local_indices` are the examples of each batch that this process reads."""

    def __len__(self) -> int:
        """How many examples there are."""

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples at the indices, as they are stored: images mostly uint8."""


def changed(
    examples: dict[str, np.ndarray], change: Change | None, seed: int, positions: np.ndarray
) -> dict[str, np.ndarray]:
    """Examples after `change`, each with random numbers of its seed and position."""
    if change is None:
        return examples
    made = [
        change(
            {name: values[i] for name, values in examples.items()},
            np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, position], np.uint64))),
        )
        for i, position in enumerate(positions)
    ]
    return {name: np.stack([one[name] for one in made]) for name in made[0]}


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A data set held in memory, placed on the device once and gathered by index inside the step.

    Attributes:
      name: for the log.
      arrays: `[n, ...]` each; uint8 becomes float32 in [-1, 1] on the device. Images are `[n, h, w, c]`, and uint8 or
        floats in [-1, 1].
      num_classes: of `'label'`.
      class_names: of the labels, for people.
    """

    name: str
    arrays: dict[str, np.ndarray]
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()

    by_index = True

    def __post_init__(self) -> None:
        sizes = {name: len(values) for name, values in self.arrays.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise InvalidInputError(f"{self.name}: arrays of lengths {sizes}; expected one length above zero")
        check_labels(self.name, self.arrays.get("label"), self.num_classes)
        check_class_names(self.name, self.class_names, self.num_classes)
        for name, values in self.arrays.items():
            check_values(f"{self.name}: {name!r}", values)

    @property
    def size(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __len__(self) -> int:
        return self.size

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[indices] for name, values in self.arrays.items()}

    @property
    def spec(self) -> Spec:
        return {name: model_spec(name, values) for name, values in self.arrays.items()}

    def summary(self) -> str:
        return f"{self.name}: {self.size:,} examples, on the device\n" + describe(
            self.arrays, self.num_classes, self.class_names
        )

    def fingerprint(self) -> str:
        """A hash of every byte."""
        return fingerprint(self.arrays, self.size)

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        def stream(start: int, length: int) -> Iterator[np.ndarray]:
            while True:
                steps = range(start, start + length)
                where = np.stack([order.positions(step, draws, batch_size, local_indices) for step in steps])
                yield order.indices(seed, where, self.size)
                start += length

        def fetch(data: Batch, index: jax.Array, step: jax.Array) -> Batch:
            del step
            return {name: to_model(name, values[index]) for name, values in data.items()}

        def input_spec(length: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((length, draws, len(local_indices)), jnp.int32)

        return Feed(self.arrays, input_spec, fetch, stream)


@dataclasses.dataclass(frozen=True)
class Records:
    """A data set too large for the device: read and decoded on the host by grain's threads, ahead of the step.

    Attributes:
      name: for the log.
      reader: random access to the examples.
      num_classes: of `'label'`.
      class_names: of the labels, for people.
      num_threads: that read and decode.
      prefetch: batches read ahead.
      change: `(example, rng) -> example`, what is done to each example of a batch on the host, such as cutting out a
        part of a large image; `rng` is a function of the seed and of the example's place in the sequence.
    """

    name: str
    reader: Reader
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    num_threads: int = 8
    prefetch: int = 16
    change: Change | None = None

    by_index = True

    def __len__(self) -> int:
        return len(self.reader)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return self.reader.read(indices)

    @property
    def spec(self) -> Spec:
        return {name: model_spec(name, x) for name, x in self._first().items()}

    def _first(self) -> dict[str, np.ndarray]:
        return changed(self.reader.read(np.zeros(1, int)), self.change, 0, np.zeros(1, int))

    @functools.cached_property
    def shown(self) -> dict[str, np.ndarray]:
        """Up to 256 examples from all over the data set."""
        count = min(256, len(self.reader))
        return self.reader.read(np.arange(count) * len(self.reader) // count)

    def summary(self) -> str:
        check_labels(self.name, self.shown.get("label"), self.num_classes)
        check_class_names(self.name, self.class_names, self.num_classes)
        for name, values in self.shown.items():
            check_values(f"{self.name}: {name!r}", values)
        count = len(next(iter(self.shown.values())))
        head = f"{self.name}: {len(self.reader):,} examples, streamed (below: {count} of them)\n"
        seen = changed(self.shown, self.change, 0, np.arange(count))
        return head + describe(seen, self.num_classes, self.class_names)

    def fingerprint(self) -> str:
        """A hash of the number of examples, and of those that the summary shows."""
        return fingerprint(self.shown, len(self.reader))

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        def stream(start: int, length: int) -> Iterator[Batch]:
            import grain  # noqa: PLC0415 - slow to import, and what lies on the device needs none of it

            batches = _Batches(self.reader, seed, batch_size, local_indices, start * draws, self.change)
            options = grain.ReadOptions(num_threads=self.num_threads, prefetch_buffer_size=self.prefetch)
            iterator = iter(
                grain.MapDataset.source(cast(Any, batches)).to_iter_dataset(options).batch(draws).batch(length)
            )
            while True:
                yield next(iterator)

        def fetch(data: None, batches: Batch, step: jax.Array) -> Batch:
            del data, step
            return {name: to_model(name, values) for name, values in batches.items()}

        def input_spec(length: int) -> dict[str, jax.ShapeDtypeStruct]:
            return {
                name: jax.ShapeDtypeStruct((length, draws, len(local_indices), *x.shape[1:]), x.dtype)
                for name, x in self._first().items()
            }

        return Feed(None, input_spec, fetch, stream)


class _Batches:
    """This host's part of every batch of the endless shuffled sequence, from batch `first` on."""

    def __init__(
        self,
        reader: Reader,
        seed: int,
        batch_size: int,
        local_indices: order.LocalIndices,
        first: int,
        change: Change | None,
    ) -> None:
        self.reader, self.seed, self.batch_size, self.first = reader, seed, batch_size, first
        self.local_indices, self.change = local_indices, change

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        where = order.positions(self.first + int(index), 1, self.batch_size, self.local_indices)[0]
        examples = self.reader.read(order.indices(self.seed, where, len(self.reader)))
        return changed(examples, self.change, self.seed, where)

    def __repr__(self) -> str:
        return f"_Batches({type(self.reader).__name__})"


@dataclasses.dataclass(frozen=True)
class Draws:
    """A distribution that is sampled inside the step: endless, and never the same batch twice.

    Attributes:
      name: for the log.
      draw: `(key, n) -> {name: [n, ...]}` in the range that the game sees.
      num_classes: of `'label'`.
      class_names: of the labels, for people.
    """

    name: str
    draw: Callable[[PRNGKey, int], Batch]
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        raise InvalidInputError(f"{self.name} is drawn anew for every batch: it has no examples to count or to read")

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        del indices
        raise InvalidInputError(f"{self.name} is drawn anew for every batch: it has no examples to count or to read")

    @property
    def spec(self) -> Spec:
        shapes = jax.eval_shape(lambda: self.draw(jax.random.key(0), 1))
        return {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in shapes.items()}

    def summary(self) -> str:
        drawn = jax.device_get(self.draw(jax.random.key(0), 1000))
        return f"{self.name}: drawn anew for every batch (below: 1,000 draws)\n" + describe(
            drawn, self.num_classes, self.class_names
        )

    def fingerprint(self) -> str:
        """A hash of the shapes only: what is drawn is in the experiment file."""
        return fingerprint({name: np.zeros(x.shape, x.dtype) for name, x in self.spec.items()}, 0)

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        del local_indices  # the draw is one global program, split over hosts by its sharding

        def stream(start: int, length: int) -> Iterator[None]:
            del start, length
            while True:
                yield None

        def fetch(data: PRNGKey, inputs: None, step: jax.Array) -> Batch:
            del inputs
            keys = jax.random.split(jax.random.fold_in(data, step), draws)
            return jax.vmap(lambda key: self.draw(key, batch_size))(keys)

        return Feed(jax.random.fold_in(jax.random.key(seed), DATA_KEY), lambda length: None, fetch, stream)


def to_model(name: str, values: Any) -> Any:
    """Labels and other integers as int32; uint8 images as float32 in [-1, 1], 255 at 1; other values as float32."""
    if values.dtype == jnp.uint8 and name != "label":
        return from_uint8(values)
    return values.astype(jnp.int32) if jnp.issubdtype(values.dtype, jnp.integer) else values.astype(jnp.float32)


def model_spec(name: str, values: np.ndarray) -> jax.ShapeDtypeStruct:
    """What `to_model` makes of one of the examples."""
    return jax.eval_shape(lambda x: to_model(name, x), jax.ShapeDtypeStruct(values.shape[1:], values.dtype))


def fingerprint(arrays: dict[str, np.ndarray], count: int) -> str:
    """A hash of arrays, and of how many examples there are."""
    digest = hashlib.sha256(str(count).encode())
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def check_labels(name: str, labels: np.ndarray | None, num_classes: int | None) -> None:
    """Labels and `num_classes` come together, and every label is from 0 to `num_classes` - 1."""
    if (labels is None) != (num_classes is None):
        raise InvalidInputError(f"{name}: num_classes={num_classes}, with{'out' if labels is None else ''} labels")
    if labels is not None and (labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer)):
        raise InvalidInputError(f"{name}: labels {labels.dtype} {labels.shape}; expected one integer per example")
    if labels is not None and num_classes is not None and (labels.min() < 0 or labels.max() >= num_classes):
        raise InvalidInputError(
            f"{name}: labels from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1} (num_classes)"
        )


def check_class_names(name: str, class_names: tuple[str, ...], num_classes: int | None) -> None:
    """As many names as classes, or none, and no name twice."""
    if class_names and (len(class_names) != num_classes or len(set(class_names)) != num_classes):
        raise InvalidInputError(
            f"{name}: {len(set(class_names))} different class names for num_classes={num_classes}: expected one each"
        )


_FARTHEST = 1.5  # beyond it a value cannot be meant for [-1, 1]


def check_values(what: str, values: np.ndarray) -> None:
    """Refuses values that are not finite, and images in a range or layout that a game would misread.

    Args:
      what: for the message: which array of which source.
      values: `[n, ...]`; with four axes or more they are taken for images or clips.

    Raises:
      InvalidInputError: for those.
    """
    floats = np.issubdtype(values.dtype, np.floating)
    if floats and not np.isfinite(values).all():
        bad = np.unique(np.nonzero(~np.isfinite(values))[0])
        raise InvalidInputError(f"{what} is not finite in {len(bad):,} examples, the first of them {bad[0]}")
    if values.ndim < 4:
        return
    if values.shape[-3] in (1, 3) and values.shape[-1] > 4:
        raise InvalidInputError(
            f"{what} has examples {values.shape[1:]}, channels first: expected height, width, channels; "
            "np.moveaxis(images, -3, -1) moves them"
        )
    if not floats and values.dtype != np.uint8:
        raise InvalidInputError(
            f"{what} is {values.dtype}, from {values.min()} to {values.max()}: expected uint8, or floats in [-1, 1]; "
            "images of 0 to 255 become that by .astype(np.uint8)"
        )
    if floats and max(-values.min(), values.max()) > _FARTHEST:
        raise InvalidInputError(
            f"{what} goes from {values.min():g} to {values.max():g}: expected floats in [-1, 1], or uint8; floats of 0 "
            "to 255 become that by images / 127.5 - 1, those of mean 0 and deviation 1 by scaling them back first"
        )


def describe(arrays: dict[str, np.ndarray], num_classes: int | None, class_names: tuple[str, ...] = ()) -> str:
    """Shape, dtype and range of each array, and the histogram of the labels by name."""
    lines = [
        f"  {name}: {values.shape[1:]} {values.dtype}, from {values.min():g} to {values.max():g}, "
        f"mean {values.mean():.4g}"
        for name, values in arrays.items()
        if name != "label"
    ]
    if num_classes is None:
        return "\n".join([*lines, "  no labels"])
    counts = np.bincount(arrays["label"], minlength=num_classes)
    named = [f"{label} {name}" if class_names else f"{label}" for label, name in enumerate(class_names or counts)]
    between = ", " if class_names else " "
    shown = between.join(f"{name}:{count:,}" for name, count in zip(named[:20], counts, strict=False))
    return "\n".join([*lines, f"  labels, {num_classes} classes: {shown}{' ...' if num_classes > 20 else ''}"])

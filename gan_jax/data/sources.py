"""The interface of data sources, and the three basic kinds: `Arrays`, `Records` and `Draws`.

`Arrays` are held in memory and gathered on the device, `Records` are streamed from storage, and `Draws` are sampled
from a distribution. Every source has `name`, `spec` (one example as the game sees it), `num_classes` (None without
labels), `class_names` (empty if the classes have no names), `summary()` for the log, `fingerprint()`, which identifies
the data, and `feed(...)`, which defines how batches get into the compiled step.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.data import order
from gan_jax.data.rows import gathered, rows
from gan_jax.data.streaming import streamed
from gan_jax.host import from_uint8
from gan_jax.types import Batch, InvalidInputError, PRNGKey, Spec

Change = Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]
DATA_KEY = 0xFFFFDA7A  # larger than every int32 step, so that folding it in never gives the key of an iteration


class Feed(NamedTuple):
    """The path of a source's batches into the compiled step.

    Attributes:
      data: constant arrays, replicated on every device.
      input_spec: `length -> shapes and dtypes` of the items that `stream` yields.
      fetch: `(data, inputs, step) -> batches` with leaves `[draws, b, ...]`; runs inside the compiled step.
      stream: `(start, length) -> iterator` over the host's inputs. Each item covers `length` iterations, beginning with
        iteration `start`: NumPy arrays `[length, draws, b, ...]`, or None if the source needs no input from the host.
    """

    data: Any
    input_spec: Callable[[int], Any]
    fetch: Callable[[Any, Any, jax.Array], Batch]
    stream: Callable[[int, int], Iterator[Any]]


class Reader(Protocol):
    """Random access to stored examples."""

    def __len__(self) -> int:
        """Returns the number of stored examples."""

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples at the indices, decoded and stacked."""


class Source(Protocol):
    """The interface of all data sources; the module's docstring gives an overview."""

    @property
    def name(self) -> str:
        """The name in the log."""

    @property
    def num_classes(self) -> int | None:
        """The number of classes of `'label'`; None without labels."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels 0, 1, ...; empty if they have none."""

    @property
    def spec(self) -> Spec:
        """The shape and dtype of each array of one example, as the game sees it."""

    def summary(self) -> str:
        """Describes the data for the log: number of examples, shapes, ranges and labels."""

    def fingerprint(self) -> str:
        """Returns a hash that identifies the data, to detect a run resumed on, or processes reading, different data."""

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        """Returns the feed of a run.

        Args:
          seed: seed of the run.
          draws: number of batches per iteration.
          batch_size: size of the global batch, over all hosts.
          local_indices: indices, within a batch, of the examples that this process reads.
        """

    def __len__(self) -> int:
        """Returns the number of examples."""

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples at the indices, as they are stored: images are mostly uint8."""


def changed(
    examples: dict[str, np.ndarray], change: Change | None, seed: int, positions: np.ndarray
) -> dict[str, np.ndarray]:
    """Applies `change` to each example, with a random generator that depends on the seed and the example's position."""
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
    """A data set held in memory: placed on the device once, and gathered by index inside the step.

    Attributes:
      name: name of the data set in the log.
      arrays: arrays by name, `[n, ...]` each; uint8 is converted to float32 in [-1, 1] on the device. Images are
        `[n, h, w, c]`, uint8 or floats in [-1, 1].
      num_classes: number of classes of `'label'`; None without labels.
      class_names: names of the labels, for display.
      notes: further lines of the summary, such as what was passed over.
    """

    name: str
    arrays: dict[str, np.ndarray]
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    by_index = True

    def __post_init__(self) -> None:
        check_arrays(self.name, self.arrays)
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
            self.arrays, self.num_classes, self.class_names, self.notes
        )

    def fingerprint(self) -> str:
        """Returns a hash of every byte."""
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
            shapes = {name: values.shape[1:] for name, values in self.arrays.items()}
            return {name: to_model(name, gathered(values, index, shapes[name])) for name, values in data.items()}

        def input_spec(length: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((length, draws, len(local_indices)), jnp.int32)

        return Feed(self._rows, input_spec, fetch, stream)

    @functools.cached_property
    def _rows(self) -> Batch:
        """The arrays as rows; made once, since members of a population share arrays that are the same object."""
        return cast(Batch, {name: rows(values) for name, values in self.arrays.items()})


@dataclasses.dataclass(frozen=True)
class Records:
    """A data set too large for the device: grain's threads read and decode batches on the host, ahead of the step.

    Attributes:
      name: name of the data set in the log.
      reader: random access to the examples.
      num_classes: number of classes of `'label'`; None without labels.
      class_names: names of the labels, for display.
      num_threads: number of threads that read and decode.
      prefetch: number of batches to read ahead.
      change: `(example, rng) -> example`, applied to each example on the host, for instance to crop a large image;
        `rng` is a function of the seed and of the example's position in the sequence.
      notes: further lines of the summary, such as what was passed over.
    """

    name: str
    reader: Reader
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    num_threads: int = 8
    prefetch: int = 16
    change: Change | None = None
    notes: tuple[str, ...] = ()

    by_index = True

    def __post_init__(self) -> None:
        if not callable(getattr(self.reader, "read", None)):
            raise InvalidInputError(
                f"{self.name}: reader is {type(self.reader).__name__}: expected an object with __len__() and "
                "read(indices), which returns arrays by name; arrays in memory are data.Arrays(name, {'real': images})"
            )

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
        """Up to 256 examples, spread evenly over the data set."""
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
        return head + describe(seen, self.num_classes, self.class_names, self.notes)

    def fingerprint(self) -> str:
        """Returns a hash of the number of examples and of the examples in `shown`; reading all would take too long."""
        return fingerprint(self.shown, len(self.reader))

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        def stream(start: int, length: int) -> Iterator[Batch]:
            batches = _Batches(self.reader, seed, batch_size, local_indices, start * draws, self.change)
            return streamed(batches, draws, length, self.num_threads, self.prefetch)

        def fetch(data: None, batches: Batch, step: jax.Array) -> Batch:
            del data, step
            return {name: to_model(name, values) for name, values in batches.items()}

        def input_spec(length: int) -> dict[str, jax.ShapeDtypeStruct]:
            return {
                name: jax.ShapeDtypeStruct(
                    (length, draws, len(local_indices), *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype)
                )
                for name, x in self._first().items()
            }

        return Feed(None, input_spec, fetch, stream)


class _Batches:
    """This host's part of the batches of the endless shuffled sequence, starting at batch `first`.

    It is a random-access source for grain: item i is the part of batch `first` + i.
    """

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
        return 2**62  # in effect endless

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        where = order.positions(self.first + int(index), 1, self.batch_size, self.local_indices)[0]
        examples = self.reader.read(order.indices(self.seed, where, len(self.reader)))
        return changed(examples, self.change, self.seed, where)

    def __repr__(self) -> str:
        return f"_Batches({type(self.reader).__name__})"


@dataclasses.dataclass(frozen=True)
class Draws:
    """A distribution that is sampled inside the step: endless, with a different batch in every iteration.

    Attributes:
      name: name of the distribution in the log.
      draw: `(key, n) -> {name: [n, ...]}`, a function that draws n examples, in the range that the game sees.
      num_classes: number of classes of `'label'`; None without labels.
      class_names: names of the labels, for display.
    """

    name: str
    draw: Callable[[PRNGKey, int], Batch]
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        raise InvalidInputError(f"{self.name} is sampled for every batch: it has no examples to count or to read")

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        del indices
        raise InvalidInputError(f"{self.name} is sampled for every batch: it has no examples to count or to read")

    @property
    def spec(self) -> Spec:
        shapes = jax.eval_shape(lambda: self.draw(jax.random.key(0), 1))
        return {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in shapes.items()}

    def summary(self) -> str:
        drawn = jax.device_get(self.draw(jax.random.key(0), 1000))
        return f"{self.name}: sampled for every batch (below: 1,000 samples)\n" + describe(
            drawn, self.num_classes, self.class_names
        )

    def fingerprint(self) -> str:
        """Returns a hash of the shapes and dtypes only; the distribution itself is code in the experiment file."""
        return fingerprint({name: np.zeros(x.shape, x.dtype) for name, x in self.spec.items()}, 0)

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        del local_indices  # every host runs the same global draw; its sharding divides the batch among hosts

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
    """Converts an array for the game: labels and integers to int32, uint8 images to [-1, 1], all else to float32."""
    if values.dtype == jnp.uint8 and name != "label":
        return from_uint8(values)
    return values.astype(jnp.int32) if jnp.issubdtype(values.dtype, jnp.integer) else values.astype(jnp.float32)


def model_spec(name: str, values: np.ndarray) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of one example after `to_model`."""
    return jax.eval_shape(
        lambda x: to_model(name, x), jax.ShapeDtypeStruct(values.shape[1:], jax.dtypes.canonicalize_dtype(values.dtype))
    )


def fingerprint(arrays: dict[str, np.ndarray], count: int) -> str:
    """Returns a hash of arrays and of a number of examples."""
    digest = hashlib.sha256(str(count).encode())
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def check_arrays(name: str, arrays: Any) -> None:
    """Raises unless `arrays` is a mapping of names to arrays `[n, ...]`."""
    if not isinstance(arrays, Mapping):
        raise InvalidInputError(
            f"{name}: arrays is {type(arrays).__name__}: expected arrays by name, such as {{'real': images}}"
        )
    for key, values in arrays.items():
        if not isinstance(key, str) or not getattr(values, "ndim", 0):
            raise InvalidInputError(
                f"{name}: {key!r} is {type(values).__name__}: expected a name, and an array [n, ...], as "
                "np.stack(examples) makes it"
            )


def check_labels(name: str, labels: np.ndarray | None, num_classes: int | None) -> None:
    """Raises unless labels and `num_classes` are given together and every label is from 0 to `num_classes` - 1."""
    if labels is None and num_classes is not None:
        raise InvalidInputError(
            f"{name}: num_classes={num_classes} without labels: give an array 'label', or leave it out"
        )
    if labels is not None and not isinstance(num_classes, int | np.integer):
        raise InvalidInputError(
            f"{name}: there are labels, and num_classes={num_classes!r}: give the number of classes, such as "
            f"num_classes={np.max(labels, initial=0) + 1}"
        )
    if labels is not None and (labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer)):
        raise InvalidInputError(f"{name}: labels {labels.dtype} {labels.shape}; expected one integer per example")
    if labels is not None and num_classes is not None and (labels.min() < 0 or labels.max() >= num_classes):
        raise InvalidInputError(
            f"{name}: labels from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1} (num_classes)"
        )


def check_class_names(name: str, class_names: tuple[str, ...], num_classes: int | None) -> None:
    """Raises unless there are no class names, or one for each class and all different."""
    if isinstance(class_names, str):
        raise InvalidInputError(f"{name}: class_names={class_names!r}: expected a tuple of names")
    if class_names and (len(class_names) != num_classes or len(set(class_names)) != num_classes):
        raise InvalidInputError(
            f"{name}: {len(set(class_names))} different class names for num_classes={num_classes}: expected one each"
        )


_FARTHEST = 1.5  # a larger absolute value shows that the range is not [-1, 1]


def check_values(what: str, values: np.ndarray) -> None:
    """Checks that values are finite, and that images have the range and layout that games expect.

    Args:
      what: source and array, for the message.
      values: the array, `[n, ...]`; with four axes or more it is treated as images or clips.

    Raises:
      InvalidInputError: if values are not finite; or if images are channels first, of a dtype other than uint8 and
        floats, or floats clearly outside [-1, 1].
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


def describe(
    arrays: dict[str, np.ndarray],
    num_classes: int | None,
    class_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> str:
    """Describes arrays for the log: shape, dtype and range of each, a histogram of the labels, and notes."""
    lines = [
        f"  {name}: {values.shape[1:]} {values.dtype}, from {values.min():g} to {values.max():g}, "
        f"mean {values.mean():.4g}"
        for name, values in arrays.items()
        if name != "label"
    ]
    said = [f"  {note}" for note in notes]
    if num_classes is None:
        return "\n".join([*lines, "  no labels", *said])
    counts = np.bincount(arrays["label"], minlength=num_classes)
    named = [f"{label} {name}" if class_names else f"{label}" for label, name in enumerate(class_names or counts)]
    between = ", " if class_names else " "
    shown = between.join(f"{name}:{count:,}" for name, count in zip(named[:20], counts, strict=False))
    labels = f"  labels, {num_classes} classes: {shown}{' ...' if num_classes > 20 else ''}"
    return "\n".join([*lines, labels, *said])

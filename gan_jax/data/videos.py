"""Clips of videos: which frames a batch gets is a function of (seed, position), as is its order.

A source of clips has videos of any lengths, all with one size of frame. Each time that a video's turn comes, a clip
starts at another frame of it. Videos that fit are held on the device as one array of frames, without padding; of others
only the frames of the clips are decoded.
"""

import dataclasses
import functools
import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.data import decode, images, order, tfds
from gan_jax.data.rows import gathered, rows
from gan_jax.data.sources import Feed, check_class_names, check_labels, check_values, describe, to_model
from gan_jax.data.streaming import streamed
from gan_jax.types import Batch, InvalidInputError, Spec

_STARTS = 0xC11F5_0000_0000  # in the key of the generator of starts, which must not be that of the order


class VideoReader(Protocol):
    """Random access to the frames of stored videos."""

    @property
    def lengths(self) -> np.ndarray:
        """The number of frames of each video, int64 `[n]`."""

    @property
    def labels(self) -> np.ndarray | None:
        """The class of each video, int32 `[n]`; None without labels."""

    def frames(self, video: int, numbers: np.ndarray) -> np.ndarray:
        """Returns some frames of a video, by their numbers: `[t, h, w, c]`, uint8."""


@dataclasses.dataclass(frozen=True)
class Held:
    """Videos in memory.

    Attributes:
      every_frame: frames of all videos, one after the other, `[frames, h, w, c]`, uint8.
      lengths: number of frames of each video, `[n]`.
      labels: class of each video, `[n]`; None without labels.
    """

    every_frame: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray | None = None

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Position of the first frame of each video in `every_frame`."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]])

    def frames(self, video: int, numbers: np.ndarray) -> np.ndarray:
        """Returns some frames of a video."""
        return self.every_frame[self.offsets[video] + numbers]


@dataclasses.dataclass(frozen=True)
class Clips:
    """A source of clips `'real'`, `[frames, h, w, c]`, and the class of their video, `'label'`.

    Attributes:
      name: name of the data set in the log.
      reader: access to the videos; `Held` ones are placed on the device, others are streamed.
      clip_frames: number of frames of a clip.
      every: distance between the frames of a clip; k takes every k-th frame.
      num_classes: number of classes; None without labels.
      class_names: names of the classes, for display.
      notes: further lines of the summary.
      num_threads: number of threads that read and decode.
      prefetch: number of batches to read ahead.
    """

    name: str
    reader: VideoReader
    clip_frames: int
    every: int = 1
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    num_threads: int = 8
    prefetch: int = 16

    by_index = True

    def __post_init__(self) -> None:
        check_lengths(self.name, self.reader.lengths, self.clip_frames, self.every)
        check_labels(self.name, self.reader.labels, self.num_classes)
        check_class_names(self.name, self.class_names, self.num_classes)

    def __len__(self) -> int:
        return len(self.reader.lengths)

    @property
    def span(self) -> int:
        """Number of frames of a video from the first to the last frame of a clip."""
        return (self.clip_frames - 1) * self.every + 1

    def starts(self, seed: int, positions: np.ndarray, videos: np.ndarray) -> np.ndarray:
        """Draws the first frame of the clips at positions of the endless sequence; all frames are equally likely.

        Args:
          seed: seed of the run.
          positions: positions, of any shape.
          videos: video at each position.

        Returns:
          Numbers of frames, int32 of the same shape.
        """
        raw = [
            np.random.Philox(key=np.array([(seed ^ _STARTS) % 2**64, position], np.uint64)).random_raw()
            for position in positions.ravel()
        ]
        choices = (self.reader.lengths[videos] - self.span + 1).astype(np.uint64)
        return (np.array(raw, np.uint64).reshape(positions.shape) % choices).astype(np.int32)

    def clips(self, videos: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the clips of some videos that begin at some frames."""
        steps = np.arange(self.clip_frames) * self.every
        pairs = zip(videos, starts, strict=True)
        found = {"real": np.stack([self.reader.frames(int(video), start + steps) for video, start in pairs])}
        return found if self.reader.labels is None else found | {"label": self.reader.labels[videos]}

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns one clip of each video: the one that seed 0 draws at the position of the video's index."""
        return self.clips(indices, self.starts(0, indices, indices))

    @property
    def spec(self) -> Spec:
        [first] = self.reader.frames(0, np.zeros(1, int))
        found = {"real": jax.ShapeDtypeStruct((self.clip_frames, *first.shape), jnp.float32)}
        return found if self.reader.labels is None else found | {"label": jax.ShapeDtypeStruct((), jnp.int32)}

    @functools.cached_property
    def shown(self) -> dict[str, np.ndarray]:
        """Clips of up to 256 videos, spread evenly over the data set."""
        count = min(256, len(self))
        return self.read(np.arange(count) * len(self) // count)

    def summary(self) -> str:
        lengths, [first] = self.reader.lengths, self.reader.frames(0, np.zeros(1, int))
        held = isinstance(self.reader, Held)
        size = first.nbytes * int(lengths.sum())
        longest = f" to {lengths.max()}" if lengths.min() < lengths.max() else ""
        check_values(f"{self.name}: 'real'", self.shown["real"])
        return (
            f"{self.name}: {len(self):,} videos of {lengths.min()}{longest} frames, {size / 1e6:,.1f} MB, "
            f"{'on the device' if held else 'streamed'}; clips of {self.clip_frames} frames"
            f"{f', every {self.every} frames' if self.every > 1 else ''} (below: {len(self.shown['real'])} of them)\n"
            + describe(self.shown, self.num_classes, self.class_names, self.notes)
        )

    def fingerprint(self) -> str:
        """Returns a hash of every byte of videos in memory; of streamed ones, of the clips in `shown`."""
        digest = hashlib.sha256(f"clips of {self.clip_frames} every {self.every}\n".encode())
        digest.update(np.asarray(self.reader.lengths, np.int64).data)
        seen = self.reader.every_frame if isinstance(self.reader, Held) else self.shown["real"]
        for values in (seen, self.reader.labels):
            if values is not None:
                digest.update(f"{values.dtype} {values.shape}\n".encode())
                digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        choose = functools.partial(self._choose, seed, batch_size=batch_size, local_indices=local_indices)
        if isinstance(self.reader, Held):
            return self._resident(self.reader, choose, draws, len(local_indices))

        def stream(start: int, length: int) -> Iterator[Batch]:
            batches = _ClipBatches(self, choose, start * draws)
            return streamed(batches, draws, length, self.num_threads, self.prefetch)

        def fetch(data: None, batches: Batch, step: jax.Array) -> Batch:
            del data, step
            return {name: to_model(name, values) for name, values in batches.items()}

        def input_spec(length: int) -> Spec:
            dtypes = {"real": jnp.uint8, "label": jnp.int32}
            return {
                name: jax.ShapeDtypeStruct((length, draws, len(local_indices), *x.shape), dtypes[name])
                for name, x in self.spec.items()
            }

        return Feed(None, input_spec, fetch, stream)

    def _choose(
        self, seed: int, step: int, draws: int, batch_size: int, local_indices: order.LocalIndices
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the video and the first frame of each example of one iteration's batches, `[draws, b]` each."""
        where = order.positions(step, draws, batch_size, local_indices)
        videos = order.indices(seed, where, len(self))
        return videos, self.starts(seed, where, videos)

    def _resident(self, held: Held, choose: Any, draws: int, count: int) -> Feed:
        shape = held.every_frame.shape[1:]

        def stream(start: int, length: int) -> Iterator[dict[str, np.ndarray]]:
            while True:
                chosen = [choose(step, draws) for step in range(start, start + length)]
                videos, starts = (np.stack(parts) for parts in zip(*chosen, strict=True))
                yield {"video": videos, "first": (held.offsets[videos] + starts).astype(np.int32)}
                start += length

        def fetch(data: dict[str, Any], inputs: dict[str, jax.Array], step: jax.Array) -> Batch:
            del step
            index = inputs["first"][..., None] + self.every * jnp.arange(self.clip_frames, dtype=jnp.int32)
            found = {"real": to_model("real", gathered(data["frames"], index, shape))}
            return found | ({"label": data["labels"][inputs["video"]]} if "labels" in data else {})

        def input_spec(length: int) -> Spec:
            one = jax.ShapeDtypeStruct((length, draws, count), jnp.int32)
            return {"video": one, "first": one}

        return Feed(self._data, input_spec, fetch, stream)

    @functools.cached_property
    def _data(self) -> dict[str, np.ndarray]:
        """The arrays for the device; made once, since members of a population share arrays that are the same object."""
        assert isinstance(self.reader, Held)
        labels = {} if self.reader.labels is None else {"labels": np.asarray(self.reader.labels, np.int32)}
        return {"frames": rows(self.reader.every_frame), **labels}


class _ClipBatches:
    """This host's part of the batches of clips, for grain: item i is the part of batch `first` + i."""

    def __init__(self, source: Clips, choose: Any, first: int) -> None:
        self.source, self.choose, self.first = source, choose, first

    def __len__(self) -> int:
        return 2**62  # in effect endless

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        videos, starts = self.choose(self.first + int(index), 1)
        return self.source.clips(videos[0], starts[0])

    def __repr__(self) -> str:
        return f"_ClipBatches({self.source.name})"


def resized(frame: np.ndarray, size: int | None) -> np.ndarray:
    """Crops a frame to its largest central square and resizes it, as `images.resize`; to a whole fraction by averaging.

    Averages of blocks keep the area and the colour of what moves: Lanczos interpolation has ringing borders, which
    change from frame to frame.
    """
    height, width, channels = frame.shape
    side = min(height, width)
    if size is None or side % size or side == size:
        return images.resize(frame, size)
    top, left, factor = (height - side) // 2, (width - side) // 2, side // size
    blocks = frame[top : top + side, left : left + side].reshape(size, factor, size, factor, channels)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)


def check_lengths(name: str, lengths: np.ndarray, frames: int, every: int) -> None:
    """Raises `InvalidInputError` for invalid clips, no videos, or videos that are shorter than a clip."""
    if frames < 1 or every < 1:
        raise InvalidInputError(f"{name}: clip_frames={frames}, every={every}: expected 1 or more")
    span = (frames - 1) * every + 1
    if len(lengths) == 0:
        raise InvalidInputError(f"{name}: expected one video or more")
    if lengths.min() < span:
        raise InvalidInputError(
            f"{name}: clips of {frames} frames, every={every}, take {span} frames: video {lengths.argmin()} has "
            f"{lengths.min()}, and {np.sum(lengths < span):,} of {len(lengths):,} are too short; set fewer frames, "
            "every=1, or remove the short ones"
        )


def hold_or_stream(reader: VideoReader, name: str, resident_bytes: int, check: bool, **about: Any) -> Clips:
    """Returns a source in memory if the decoded videos take at most `resident_bytes`, and else one that streams.

    Args:
      reader: access to the videos.
      name: name of the data set in the log.
      resident_bytes: the largest size that is held in memory.
      check: whether to decode all videos of a source that streams once, so that a broken one is found at the start.
      **about: further arguments of `Clips`.

    Returns:
      The source.

    Raises:
      InvalidInputError: if videos cannot be decoded, or have frames of several sizes.
    """
    made = Clips(name, reader, **about)  # checks the lengths, before anything is decoded
    [first] = reader.frames(0, np.zeros(1, int))
    lengths = np.asarray(reader.lengths, np.int64)
    held = first.nbytes * int(lengths.sum()) <= resident_bytes
    store = np.empty((int(lengths.sum()) if held else 0, *first.shape), np.uint8)
    ends = np.cumsum(lengths)

    def part(videos: np.ndarray) -> list[str]:
        broken = []
        for video in videos:
            try:
                found = reader.frames(int(video), np.arange(lengths[video]))
                if found.shape[1:] != first.shape:
                    raise InvalidInputError(
                        f"{name}: video {video} has frames {found.shape[1:]}, the first one {first.shape}: set "
                        "image_size (and channels) to bring all to one shape"
                    )
            except InvalidInputError as error:
                broken.append(str(error))
                continue
            if held:
                store[ends[video] - lengths[video] : ends[video]] = found
        return broken

    if held or check:
        doing = f"reading {name}" if held else f"checking {name}"
        images.refuse_broken([line for lines in images.in_threads(part, len(lengths), doing) for line in lines])
    return dataclasses.replace(made, reader=Held(store, lengths, reader.labels)) if held else made


def video_arrays(
    name: str,
    videos: np.ndarray | Sequence[np.ndarray],
    *,
    clip_frames: int,
    every: int = 1,
    labels: np.ndarray | None = None,
    num_classes: int | None = None,
    class_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Clips:
    """Makes a source of clips from videos in memory.

    Args:
      name: name of the data set in the log.
      videos: uint8 array `[n, t, h, w, c]`, or a list of arrays `[t, h, w, c]` of any lengths t.
      clip_frames: number of frames of a clip.
      every: distance between the frames of a clip.
      labels: class of each video, `[n]`.
      num_classes: number of classes; None without labels.
      class_names: names of the classes, for display.
      notes: further lines of the summary.

    Returns:
      The source, `'real'` with examples `[clip_frames, h, w, c]`.

    Raises:
      InvalidInputError: for videos that are no such arrays, of several sizes, or shorter than a clip.
    """
    shapes = {(np.shape(video)[1:], str(getattr(video, "dtype", type(video)))) for video in videos}
    if len(shapes) != 1 or any(len(shape) != 3 or dtype != "uint8" for shape, dtype in shapes):
        raise InvalidInputError(
            f"{name}: videos with frames {sorted(shapes) or 'none'}: expected uint8 arrays [t, h, w, c] of one height, "
            "width and number of channels; floats in [-1, 1] become uint8 by np.round((x + 1) * 127.5).astype(np.uint8)"
        )
    lengths = np.array([len(video) for video in videos], np.int64)
    together = isinstance(videos, np.ndarray) and videos.ndim == 5
    every_frame = videos.reshape(-1, *videos.shape[2:]) if together else np.concatenate(list(videos))  # type: ignore[union-attr]
    given = None if labels is None else np.asarray(labels, np.int32)
    if given is not None and len(given) != len(lengths):
        raise InvalidInputError(f"{name}: {len(given)} labels of {len(lengths)} videos: expected one for each")
    return Clips(name, Held(every_frame, lengths, given), clip_frames, every, num_classes, class_names, notes)


def tfds_videos(
    name: str,
    *,
    data_dir: str,
    labels: bool,
    clip_frames: int,
    every: int = 1,
    split: str = "train",
    image_size: int | None = None,
    channels: int | None = None,
    video_key: str = "video",
    label_key: str = "label",
    check: bool = True,
    resident_bytes: int = images.RESIDENT_BYTES,
) -> Clips:
    """Reads videos of a TFDS data set that was prepared as array_record: clips as `'real'`, labels as `'label'`.

    The feature must be a `Sequence` of `Image`. TFDS needs TensorFlow to read a feature of its class `Video`.

    Args:
      name: name of the data set, as in `tfds_images`.
      data_dir: directory in which TFDS prepared the data set.
      labels: whether to deliver the labels.
      clip_frames: number of frames of a clip.
      every: distance between the frames of a clip.
      split: split in TFDS syntax.
      image_size: height and width to which frames are cropped and resized, by averaging where it is a whole fraction;
        None keeps the size.
      channels: 1 for grey, 3 for colour; None keeps what the feature has.
      video_key: name of the feature that holds the video.
      label_key: name of the feature that holds the label.
      check: whether to decode all videos of a streamed data set once at the start.
      resident_bytes: videos of at most this many decoded bytes are held on the device; more are streamed.

    Returns:
      The source.

    Raises:
      InvalidInputError: as `tfds_images`; for a feature that is no sequence of images; for videos shorter than a clip.
    """
    images.check_size(image_size)
    records, features = tfds.open_prepared(name, data_dir, split, label_key if labels else None)
    wanted = [video_key, *([label_key] if labels else [])]
    if missing := [key for key in wanted if key not in features]:
        raise InvalidInputError(f"TFDS data set {name!r} has no feature {missing}: it has {sorted(features)}")
    frame = getattr(features[video_key], "feature", None)
    if frame is None:
        raise InvalidInputError(
            f"feature {video_key!r} of {name!r} is {features[video_key]}: expected a Sequence of Image; name another "
            "feature by video_key, or read images by tfds_images"
        )
    stored = tfds.stored_channels(frame, f"a frame of feature {video_key!r} of {name!r}")
    reader = _Records(records, name, video_key, image_size, decode.Decoder(channels or min(stored, 3)))
    num_classes = getattr(features[label_key], "num_classes", None) if labels else None
    if labels and num_classes is None:
        raise InvalidInputError(f"feature {label_key!r} of {name!r} is not a class label; set labels=False")
    names = (getattr(features[label_key], "names", None) or ()) if labels else ()
    reader.look(label_key if labels else None)
    return hold_or_stream(
        reader, f"{name} ({split})", resident_bytes, check,
        clip_frames=clip_frames, every=every, num_classes=num_classes, class_names=tuple(names),
    )  # fmt: skip


class _Records:
    """Videos of a TFDS data set."""

    def __init__(self, records: Any, name: str, key: str, size: int | None, decoder: decode.Decoder) -> None:
        self.records, self.name, self.key, self.size, self.decoder = records, name, key, size, decoder
        self.lengths = np.zeros(0, np.int64)
        self.labels: np.ndarray | None = None

    def look(self, label_key: str | None) -> None:
        """Reads the lengths and labels of all videos; frames are not decoded."""

        def part(indices: np.ndarray) -> list[tuple[int, int]]:
            found = self._records(indices)
            return [(len(record[self.key]), int(record[label_key]) if label_key else 0) for record in found]

        parts = images.in_threads(part, len(self.records), f"opening {self.name}")
        lengths, labels = np.array([pair for pairs in parts for pair in pairs]).reshape(-1, 2).T
        self.lengths = lengths.astype(np.int64)
        self.labels = None if label_key is None else labels.astype(np.int32)

    def _records(self, indices: np.ndarray) -> list[dict[str, Any]]:
        try:
            return self.records.__getitems__([int(index) for index in indices])
        except Exception as error:
            raise InvalidInputError(
                f"{self.name}: examples {indices.min()} to {indices.max()} cannot be read ({error}); prepare it again"
            ) from error

    def frames(self, video: int, numbers: np.ndarray) -> np.ndarray:
        """Decodes some frames of a video."""
        [record] = self._records(np.array([video]))
        made, what = [], f"video {video} of {self.name}"
        for number in numbers:
            with decode.open_picture(io.BytesIO(record[self.key][number]), what) as picture:
                made.append(resized(self.decoder.pixels(picture, what), self.size))
        return np.stack(made)

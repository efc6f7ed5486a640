"""A folder of clips: animated pictures, films, and folders of frames."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gan_jax.data import decode, folder, images
from gan_jax.data.videos import Clips, check_lengths, hold_or_stream, resized
from gan_jax.types import InvalidInputError

FILMS = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv"))
_ANIMATED = frozenset((".gif", ".webp", ".png", ".apng", ".avif"))  # pictures that may have several frames
_TOLERANCE = 0.2  # of a frame's duration: files round it, to hundredths of a second in GIF


@dataclasses.dataclass(frozen=True)
class Movie:
    """One clip on the disk.

    Attributes:
      path: the file, or the folder of frames.
      stored: for each frame of the clip, the number of the stored frame that it shows, `[t]`.
      rate: frames per second; None if the file does not say.
      size: width and height of the frames.
      files: files of the frames, for a folder of them.
      times: times of the stored frames of a film, in seconds.
    """

    path: pathlib.Path
    stored: np.ndarray
    rate: float | None
    size: tuple[int, int]
    files: tuple[pathlib.Path, ...] = ()
    times: np.ndarray | None = None


def video_folder(
    path: str,
    *,
    image_size: int,
    clip_frames: int,
    labels: bool,
    every: int = 1,
    channels: int = 3,
    background: str = "white",
    frame_rate: float | None = None,
    skip_short: bool = False,
    check: bool = True,
    resident_bytes: int = images.RESIDENT_BYTES,
) -> Clips:
    """Reads all clips below a folder as `'real'`, `[clip_frames, image_size, image_size, channels]`.

    A clip is an animated picture (GIF, WebP, APNG, AVIF), a film (MP4, WebM and others, by the package PyAV), or a
    folder that has still images alone, which are its frames in natural order (2 before 10). Frames are cropped to the
    largest central square and resized. Hidden files and those of other kinds are passed over and counted.

    Where a picture is shown for two or more frames, as GIFs store frames that do not change, it is repeated.

    Args:
      path: the folder.
      image_size: height and width in pixels.
      clip_frames: number of frames of a clip.
      labels: whether to use the names of the sub-folders as classes, delivered as `'label'`.
      every: distance between the frames of a clip.
      channels: 1 for grey, 3 for colour.
      background: colour that shows through where frames are transparent.
      frame_rate: frames per second to which all clips are brought, by repeating or leaving out frames; 0 takes frames
        as they are stored, whatever their durations. None: as they are stored, and clips of varying or of several
        rates are refused.
      skip_short: whether to pass over clips that are too short, instead of refusing them.
      check: whether to decode all clips of a streamed folder once at the start, to find broken ones.
      resident_bytes: clips of at most this many decoded bytes are held on the device; more are streamed.

    Returns:
      The source.

    Raises:
      InvalidInputError: for a folder without clips; clips that cannot be decoded, are too short, or have frames of
        several sizes or rates; a still image among clips; films without PyAV; labels without sub-folders.
    """
    root = images.directory(path, "the folder of clips")
    images.check_size(image_size)
    if frame_rate is not None and not 0 <= frame_rate < float("inf"):
        raise InvalidInputError(f"frame_rate={frame_rate}: expected frames per second, 0, or None")
    decoder = decode.Decoder(channels, background)
    endings = frozenset(decode.endings()) | FILMS | {".apng"}
    files, passed = folder.files_below(root, endings, "clip")
    movies = _timed(_movies(root, files), frame_rate)
    if skip_short:
        span = (clip_frames - 1) * every + 1
        passed["clip(s) that are too short"] = sum(len(movie.stored) < span for movie in movies)
        movies = [movie for movie in movies if len(movie.stored) >= span] or movies
    _check_short(movies, clip_frames, every)
    classes, targets = _classes(root, path, movies) if labels else ([], None)
    notes = [folder.listed("passed over", +passed)] if +passed else []
    if changed := sum(len(set(movie.size)) > 1 for movie in movies):
        notes.append(f"clips: {changed:,} not square, cropped to the central square")
    if repeated := sum(len(movie.stored) - len(np.unique(movie.stored)) for movie in movies):
        notes.append(f"clips: {repeated:,} frames repeated, as their durations say")
    if small := sum(min(movie.size) < image_size for movie in movies):
        notes.append(f"clips: {small:,} smaller than {image_size} pixels, enlarged")
    return hold_or_stream(
        _Movies(movies, targets, image_size, decoder), f"folder {root.absolute().name}", resident_bytes, check,
        clip_frames=clip_frames, every=every, num_classes=len(classes) if labels else None,
        class_names=tuple(classes), notes=tuple(notes),
    )  # fmt: skip


def _check_short(movies: Sequence[Movie], clip_frames: int, every: int) -> None:
    """Names the clips that are too short."""
    span = (clip_frames - 1) * every + 1
    if every < 1 or clip_frames < 1:
        check_lengths("clips", np.array([len(movie.stored) for movie in movies]), clip_frames, every)
    images.refuse_broken([
        f"{movie.path} has {len(movie.stored)} frames; a clip of {clip_frames} frames, every={every}, takes {span}: "
        "set fewer frames, or skip_short=True to pass over such clips"
        for movie in movies
        if len(movie.stored) < span
    ])  # fmt: skip


def _classes(root: pathlib.Path, path: str, movies: Sequence[Movie]) -> tuple[list[str], np.ndarray]:
    parts = [movie.path.relative_to(root).parts for movie in movies]
    names = sorted({part[0] for part in parts if len(part) > 1}, key=folder.natural)
    stray = [movie.path for movie, part in zip(movies, parts, strict=True) if len(part) < 2]
    if stray or len(names) < 2:
        raise InvalidInputError(
            f"labels=True needs every clip in one of two or more class sub-folders of {path!r}: found {len(names)} "
            f"sub-folders and {len(stray)} clips outside of them{''.join(f', {x.name}' for x in stray[:3])}. A folder "
            "of still images is one clip, so frames lie in CLASS/CLIP/FRAME; or set labels=False"
        )
    return names, np.array([names.index(part[0]) for part in parts], np.int32)


def _movies(root: pathlib.Path, files: Sequence[pathlib.Path]) -> list[tuple[Movie, np.ndarray]]:
    """Opens all files; returns the clips, each with the durations of its stored frames in seconds."""

    def part(indices: np.ndarray) -> list[Any]:
        return [_opened(files[index]) for index in indices]

    found = [
        one for many in images.in_threads(part, len(files), f"opening folder {root.absolute().name}") for one in many
    ]
    images.refuse_broken([one for one in found if isinstance(one, str)])
    stills, moving = collections.defaultdict(list), []
    for file, one in zip(files, found, strict=True):
        if len(one[0].stored) > 1 or file.suffix.lower() in FILMS:
            moving.append(one)
        else:
            stills[file.parent].append(one[0])
    among = {movie.path.parent for movie, _ in moving} & set(stills)
    images.refuse_broken([
        f"{still.path} is a still image among clips, or has frames that are all alike: remove it, or put the frames "
        "of a clip into a folder of their own"
        for home in sorted(among)
        for still in stills[home]
    ])  # fmt: skip
    if root in stills or not (moving or stills):
        raise InvalidInputError(
            f"folder {root} has {len(stills.get(root, []))} still images and no clip: expected animated pictures, "
            f"films ({', '.join(sorted(FILMS))}), or a folder for the frames of each clip; image_folder reads images"
        )
    return sorted([*moving, *(_of_frames(home, frames) for home, frames in stills.items())], key=lambda x: x[0].path)


def _of_frames(home: pathlib.Path, frames: Sequence[Movie]) -> tuple[Movie, np.ndarray]:
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) > 1:
        raise InvalidInputError(f"{home}: the frames of one clip have the sizes {sizes}: bring them to one size")
    files = sorted((frame.path for frame in frames), key=lambda file: folder.natural(file.name))
    return Movie(home, np.arange(len(files)), None, sizes[0], tuple(files)), np.zeros(len(files))


def _opened(file: pathlib.Path) -> tuple[Movie, np.ndarray] | str:
    """Opens a file, and returns it with the durations of its frames in seconds; or the error."""
    times = None
    try:
        if file.suffix.lower() in FILMS:
            times, size = _film_times(file)
            durations = np.diff(times, append=times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0.0))
        elif file.suffix.lower() in _ANIMATED:
            durations, size = _picture_durations(file)
        else:
            with decode.open_picture(file, str(file)) as picture:
                durations, size = np.zeros(1), picture.size
    except InvalidInputError as error:
        return str(error)
    return Movie(file, np.arange(len(durations)), None, size, times=times), durations


def _picture_durations(file: pathlib.Path) -> tuple[np.ndarray, tuple[int, int]]:
    with decode.open_picture(file, str(file)) as picture, decode.reading(str(file), "is corrupt"):
        first = int(getattr(picture, "default_image", False))  # an APNG may show another image where it cannot move
        durations = []
        for number in range(first, getattr(picture, "n_frames", 1)):
            picture.seek(number)
            picture.load()  # WebP tells the duration of a frame that was decoded
            durations.append(float(picture.info.get("duration") or 0.0) / 1000.0)
        return np.array(durations), picture.size


def _timed(opened: Sequence[tuple[Movie, np.ndarray]], frame_rate: float | None) -> list[Movie]:
    """Brings clips to a frame rate; see `video_folder`."""
    movies = [_at_rate(movie, durations, frame_rate) for movie, durations in opened]
    rates = sorted({round(movie.rate, 1) for movie in movies if movie.rate is not None})
    if frame_rate is None and len(rates) > 1 and rates[-1] > rates[0] * (1 + _TOLERANCE):
        raise InvalidInputError(
            f"clips of {rates[0]:g} to {rates[-1]:g} frames per second: one motion would have several speeds; set "
            "frame_rate to bring all to one rate, or frame_rate=0 to take frames as they are stored"
        )
    return movies


def _at_rate(movie: Movie, durations: np.ndarray, frame_rate: float | None) -> Movie:
    least = durations.min()
    if frame_rate == 0 or durations.max() <= 0:
        if frame_rate:
            raise InvalidInputError(f"{movie.path} has no durations of frames: set frame_rate=0 to take them as stored")
        return movie
    if frame_rate:
        starts = np.concatenate([[0.0], np.cumsum(durations)])
        wanted = np.arange(max(1, round(starts[-1] * frame_rate))) / frame_rate
        shown = np.searchsorted(starts, wanted + 1e-6, side="right") - 1
        return dataclasses.replace(movie, stored=np.minimum(shown, len(durations) - 1), rate=frame_rate)
    times = np.round(durations / least) if least > 0 else np.zeros(1)
    if least <= 0 or np.abs(durations / least - times).max() > _TOLERANCE:
        raise InvalidInputError(
            f"{movie.path} has frames of {least * 1000:g} to {durations.max() * 1000:g} ms: the rate varies; set "
            "frame_rate to bring all clips to one rate, or frame_rate=0 to take frames as they are stored"
        )
    if times.sum() > 2 * len(times):
        raise InvalidInputError(
            f"{movie.path} has {len(times)} frames of {least * 1000:g} to {durations.max() * 1000:g} ms, which would "
            f"become {times.sum():,.0f} by repetition: set frame_rate to bring all clips to one rate, or frame_rate=0 "
            "to take frames as they are stored"
        )
    repeated = np.repeat(movie.stored, times.astype(int))
    return dataclasses.replace(movie, stored=repeated, rate=float(len(repeated) / durations.sum()))


class _Movies:
    """Clips on the disk."""

    def __init__(self, movies: list[Movie], labels: np.ndarray | None, size: int, decoder: decode.Decoder) -> None:
        self.movies, self.labels, self.size, self.decoder = movies, labels, size, decoder
        self.lengths = np.array([len(movie.stored) for movie in movies], np.int64)

    def frames(self, video: int, numbers: np.ndarray) -> np.ndarray:
        """Decodes some frames of a clip."""
        movie = self.movies[video]
        wanted = movie.stored[numbers]
        if movie.files:
            made = {int(number): self._still(movie.files[number]) for number in np.unique(wanted)}
        elif movie.path.suffix.lower() in FILMS:
            made = {n: self._pixels(picture, movie) for n, picture in _film_frames(movie, np.unique(wanted))}
        else:
            made = self._animated(movie, np.unique(wanted))
        missing = sorted(set(map(int, wanted)) - set(made))
        if missing:
            raise InvalidInputError(f"{movie.path} is corrupt (frame {missing[0]} is missing): fix or remove it")
        return np.stack([made[int(number)] for number in wanted])

    def _pixels(self, picture: Image.Image, movie: Movie) -> np.ndarray:
        return resized(self.decoder.pixels(picture, str(movie.path)), self.size)

    def _still(self, file: pathlib.Path) -> np.ndarray:
        with decode.open_picture(file, str(file)) as picture:
            return resized(self.decoder.pixels(picture, str(file)), self.size)

    def _animated(self, movie: Movie, numbers: np.ndarray) -> dict[int, np.ndarray]:
        made = {}
        with decode.open_picture(movie.path, str(movie.path)) as picture:
            first = int(getattr(picture, "default_image", False))
            for number in numbers:
                with decode.reading(str(movie.path), "is corrupt"):
                    picture.seek(first + int(number))
                made[int(number)] = self._pixels(picture, movie)
        return made


@functools.cache
def _av() -> Any:
    """Imports PyAV."""
    try:
        import av  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise InvalidInputError(
            "films are read by PyAV, which is not installed: pip install 'gan_jax[video]', or convert them to WebP or "
            "GIF"
        ) from error
    return av


def _film_times(file: pathlib.Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns the times of the frames of a film in seconds, in order, and its size; nothing is decoded."""
    av = _av()
    with decode.reading(str(file), "is not a film that can be opened"), av.open(str(file)) as container:
        if not container.streams.video:
            raise InvalidInputError(f"{file} has no video stream: remove it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise InvalidInputError(f"{file} has a codec that PyAV was built without: convert it to H.264 or VP9")
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        if not stamps:
            raise InvalidInputError(f"{file} has no frames: remove it")
        size = stream.codec_context.width, stream.codec_context.height
        return np.array(stamps) * float(stream.time_base), size


def _film_frames(movie: Movie, numbers: np.ndarray) -> Iterator[tuple[int, Image.Image]]:
    """Decodes frames of a film, one after the other, from the key frame before the first of them."""
    times, file = movie.times, str(movie.path)
    assert times is not None, movie.path
    wanted = {int(number) for number in numbers}
    with decode.reading(file, "is corrupt"), _av().open(file) as container:
        stream = container.streams.video[0]
        if numbers[0] > 0:
            container.seek(round(times[numbers[0]] / float(stream.time_base)), stream=stream, backward=True)
        for frame in container.decode(stream):
            number = int(np.abs(times - frame.time).argmin())
            if number in wanted:
                yield number, frame.to_image()
                wanted.discard(number)
            if not wanted:
                break

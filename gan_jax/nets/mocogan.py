"""MoCoGAN's generator and critics of clips, and a critic of a few frames.

Tulyakov et al., "MoCoGAN: Decomposing Motion and Content for Video Generation", arXiv:1707.04993, 2017. A clip has one
content and a motion, which a GRU makes from noise, frame by frame; each frame is made from both by DCGAN's generator.
One critic sees single frames, another one sees clips.

The authors' code makes clips of 64x64 pixels. Here the smallest map is 4x4 for any size of 4 times a power of two.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.types import InvalidInputError, PRNGKey


class ClipLatents(NamedTuple):
    """The parts of a clip's latents.

    Attributes:
      content: content, the same for all frames, `[b, content]`.
      category: latents of the category, `[b, categories]`.
      start: first hidden state of the GRU, `[b, motion]`.
      noise: noise of each frame, `[b, t, motion]`.
    """

    content: Array
    category: Array
    start: Array
    noise: Array


def split_latents(z: Float[Array, "b d"], content: int, motion: int, categories: int) -> ClipLatents:
    """Splits latents into content, category and motion; their size tells the number of frames.

    Args:
      z: latents, `[b, content + categories + motion (t + 1)]`.
      content: size of the content.
      motion: size of the motion of one frame.
      categories: number of categories; 0 for none.

    Returns:
      The parts.

    Raises:
      InvalidInputError: for latents of another size.
    """
    rest = z.shape[-1] - content - categories
    if rest < 2 * motion or rest % motion:
        raise InvalidInputError(
            f"z {z.shape}: expected {content} + {categories} + {motion} (frames + 1) latents of content, category and "
            "motion"
        )
    held, category, start, noise = jnp.split(z, (content, content + categories, z.shape[-1] - rest + motion), axis=-1)
    return ClipLatents(held, category, start, noise.reshape(z.shape[0], -1, motion))


def _torch_uniform(key: PRNGKey, shape: tuple[int, ...], dtype: layers.DType = jnp.float32, fan: int = 0) -> Array:
    """Draws torch's default weights, uniform in +-1 / sqrt(fan); by default the fan is that of a convolution."""
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / math.sqrt(fan or math.prod(shape[:-1]))


def _transposed_uniform(key: PRNGKey, shape: tuple[int, ...], dtype: layers.DType = jnp.float32) -> Array:
    """Draws torch's default weights of a transposed convolution, whose fan counts output channels."""
    return _torch_uniform(key, shape, dtype, math.prod(shape) // shape[-2])


class MotionGRU(nn.Module):
    """GRU that turns noise into motion; with torch's parameters, biases of input and hidden state apart.

    r, u = sigmoid(W e + b + V h + c); n = tanh(W e + b + r (V h + c)); h' = (1 - u) n + u h.
    """

    @nn.compact
    def __call__(self, start: Float[Array, "b d"], noise: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        size = start.shape[-1]

        def parameter(name: str, *shape: int) -> Array:
            init = lambda key, shape: _torch_uniform(key, shape, fan=size)  # noqa: E731
            return self.param(name, init, (*shape, 3 * size)).astype(noise.dtype)

        into = noise @ parameter("input_kernel", size) + parameter("input_bias")
        kernel, bias = parameter("hidden_kernel", size), parameter("hidden_bias")

        def advance(h: Array, x: Array) -> tuple[Array, Array]:
            (xr, xu, xn), (hr, hu, hn) = (jnp.split(gates, 3, axis=-1) for gates in (x, h @ kernel + bias))
            u, n = jax.nn.sigmoid(xu + hu), jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
            h = (1.0 - u) * n + u * h
            return h, h

        return jnp.moveaxis(jax.lax.scan(advance, start, jnp.moveaxis(into, 1, 0))[1], 0, 1)


class MoCoGANGenerator(nn.Module):
    """Generator that maps latents to clips `[b, t, image_size, image_size, channels]` in [-1, 1].

    The latents are `[b, content + categories + motion (t + 1)]`; see `split_latents`. Their size decides the number of
    frames, so that a trained generator makes clips of any length.

    Attributes:
      image_size: height and width in pixels, 8, 16, 32, 64, ...
      channels: number of image channels.
      width: feature maps before the last layer; their number doubles at every halving of the resolution.
      content: size of the content.
      motion: size of the motion of one frame.
      categories: number of categories that the generator invents: the category is the largest of as many latents. 0 for
        none.
      num_classes: number of classes of a conditional generator, whose label takes the place of the category.
      recurrent: whether a GRU makes the motion; if not, the frames get the noise itself, without any order in time.
      dtype: dtype of the computation; parameters and clips are float32.
    """

    image_size: int
    channels: int
    width: int = 64
    content: int = 50
    motion: int = 10
    categories: int = 0
    num_classes: int | None = None
    recurrent: bool = True
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, "b t h w c"]:
        layers.check_settings(self.dtype, width=self.width, channels=self.channels, content=self.content)
        count = _doublings(self.image_size)
        z = z.astype(self.dtype)
        parts = split_latents(z, self.content, self.motion, self.categories)
        motion = MotionGRU(name="motion")(parts.start, parts.noise) if self.recurrent else parts.noise
        b, t = motion.shape[:2]
        still = [parts.content]
        if self.num_classes is not None:
            still.append(jax.nn.one_hot(layers.given(label), self.num_classes, dtype=self.dtype))
        if self.categories:
            still.append(jax.nn.one_hot(jnp.argmax(parts.category, -1), self.categories, dtype=self.dtype))
        held = jnp.concatenate(still, axis=-1)
        x = jnp.concatenate([jnp.broadcast_to(held[:, None], (b, t, held.shape[-1])), motion], axis=-1)
        x = x.reshape(b * t, 1, 1, x.shape[-1])
        for level in range(count + 1):
            stride, padding = (2, 1) if level else (1, 0)
            last = level == count
            x = layers.Conv(
                self.channels if last else self.width << (count - 1 - level), 4, stride, padding,
                op=ops.conv_transpose, use_bias=False, dtype=self.dtype, kernel_init=_transposed_uniform,
                name=f"doubled_{level}",
            )(x)  # fmt: skip
            if not last:
                x = jax.nn.relu(
                    layers.normalize(x, "batch", train=train, dtype=self.dtype, name=f"doubled_norm_{level}")
                )
        return jnp.tanh(x.astype(jnp.float32)).reshape(b, t, self.image_size, self.image_size, self.channels)


def _doublings(image_size: int) -> int:
    """Returns how many times a map of 4x4 is doubled to reach the size."""
    count = max(0, int(image_size)).bit_length() - 3
    if count < 1 or 4 << count != image_size:
        raise InvalidInputError(f"image_size={image_size}: MoCoGAN takes 8, 16, 32, 64, ... pixels; resize the data")
    return count


class ClipConv(nn.Module):
    """A convolution in time, height and width: kernel 4, stride 1 in time, no bias (`ops.conv_clip`)."""

    features: int
    stride: int
    padding: int
    dtype: layers.DType

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t2 h2 w2 features"]:
        kernel = self.param("kernel", _torch_uniform, (4, 4, 4, x.shape[-1], self.features), jnp.float32)
        return ops.conv_clip(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride, padding=self.padding)


class MoCoGANCritic(nn.Module):
    """Critic of frames `[b, h, w, c]` or clips `[b, t, h, w, c]`, with outputs `[b, ..., outputs]`.

    Convolutions of kernel 4 and stride 2 halve the map until it is 4x4; a last one gives the outputs. In time, the
    kernels are 4 as well, with stride 1 and without padding, so that clips need 3 (n + 1) + 1 frames, n being the
    number of halvings: 13 at 32 pixels, 16 at 64. Longer clips have several outputs in time.

    Attributes:
      outputs: number of outputs: a logit, and those of the categories.
      width: feature maps of the first convolution; their number doubles with each further one.
      noise: standard deviation of noise that is added before every convolution but the last, in training.
      norm: normalisation from the second convolution on: 'batch', 'layer' or 'none'.
      halvings: number of halvings; None for as many as lead to 4x4.
      patch: whether the last convolution has stride 2 and padding 1, so that each output judges a patch.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    outputs: int = 1
    width: int = 64
    noise: float = 0.1
    norm: str = "batch"
    halvings: int | None = None
    patch: bool = False
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *thwc"], *, train: bool) -> Float[Array, "b *rest outputs"]:
        layers.check_settings(self.dtype, width=self.width, outputs=self.outputs)
        layers.check_norm(self, self.norm, "batch", "layer", "none")
        count = _doublings(x.shape[-2]) if self.halvings is None else self.halvings
        if x.ndim == 5 and x.shape[1] < 3 * count + 4:
            raise InvalidInputError(
                f"clips of {x.shape[1]} frames and {x.shape[-2]} pixels: the critic of clips needs {3 * count + 4} "
                "frames or more; take longer clips, smaller frames, or the critic of three frames "
                "(nets.FramesDiscriminator, critic=frames in configs)"
            )

        def convolved(x: Array, features: int, stride: int, padding: int, name: str) -> Array:
            if x.ndim == 5:
                return ClipConv(features, stride, padding, self.dtype, name=name)(x)
            return layers.Conv(
                features, 4, stride, padding, use_bias=False, dtype=self.dtype, kernel_init=_torch_uniform, name=name
            )(x)

        x = x.astype(self.dtype)
        for level in range(count):
            if self.noise and train and self.has_rng("noise"):
                x = x + self.noise * jax.random.normal(self.make_rng("noise"), x.shape, x.dtype)
            x = convolved(x, self.width << level, 2, 1, f"halved_{level}")
            if level:
                x = layers.normalize(x, self.norm, train=train, dtype=self.dtype, name=f"norm_{level}")
            x = layers.leaky_relu(x)
        x = convolved(x, self.outputs, *((2, 1) if self.patch else (1, 0)), "last").astype(jnp.float32)
        single = tuple(axis for axis in range(1, x.ndim - 1) if x.shape[axis] == 1)
        return jnp.squeeze(x, single)


def chosen_frames(clips: Float[Array, "b t h w c"], index: Int[Array, "b k"]) -> Float[Array, "b k h w c"]:
    """Takes frames of each clip by their numbers; a sum over frames, which needs no exchange between devices."""
    chosen = jax.nn.one_hot(index, clips.shape[1], dtype=clips.dtype)
    return jnp.einsum("bkt,bthwc->bkhwc", chosen, clips, precision="highest")


def _of_frames(
    module: nn.Module, critic: MoCoGANCritic, clips: Float[Array, "b t h w c"], *, train: bool
) -> Float[Array, "b *t"]:
    """Returns a critic's logits of one frame of each clip, drawn at random; without a random key, of all frames."""
    b, t = clips.shape[:2]
    if module.has_rng("noise"):
        index = jax.random.randint(module.make_rng("noise"), (b, 1), 0, t)
        return critic(chosen_frames(clips, index)[:, 0], train=train)[..., 0]
    return critic(clips.reshape(b * t, *clips.shape[2:]), train=train).reshape(b, t)


class MoCoGANDiscriminator(nn.Module):
    """Discriminator of MoCoGAN: a critic of frames and a critic of clips, whose losses add up.

    The critic of frames sees one frame of each clip, drawn at random; without a random key, it sees all frames.

    Attributes:
      width: feature maps of the first convolution of each critic.
      categories: number of categories, whose logits are the output `'classes'`; 0 for none.
      noise: standard deviation of the noise before the convolutions, in training.
      norm: normalisation: 'batch', 'layer' or 'none'.
      image: whether there is a critic of frames.
      video_width: feature maps of the first convolution of the critic of clips; None for `width`.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    width: int = 64
    categories: int = 0
    noise: float = 0.1
    norm: str = "batch"
    image: bool = True
    video_width: int | None = None
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w c"], *, train: bool) -> dict[str, Array | dict[str, Array]]:
        layers.check_norm(self, self.norm, "batch", "layer", "none")
        b = clips.shape[0]
        options = {"noise": self.noise, "norm": self.norm, "dtype": self.dtype}
        video = MoCoGANCritic(1 + self.categories, self.video_width or self.width, name="video", **options)
        seen = video(clips, train=train)
        logits = {"video": seen[..., 0]}
        if self.image:
            critic = MoCoGANCritic(1, self.width, name="image", **options)
            logits["image"] = _of_frames(self, critic, clips, train=train)
        if not self.categories:
            return {"logits": logits}
        return {"logits": logits, "classes": jnp.mean(seen[..., 1:].reshape(b, -1, self.categories), axis=1)}


class FramesDiscriminator(nn.Module):
    """Discriminator of a few frames of a clip, as in StyleGAN-V: a two-dimensional critic, at a fraction of the cost.

    Each clip has its own frames, drawn without replacement and in order; without a random key, they are spread evenly.
    Convolutions of stride 2 work on each frame until the map is `joined_size`. The channels of all frames are then
    concatenated. A projection on the distances in time between the frames tells how far apart they are.

    Attributes:
      frames: number of frames.
      width: feature maps of the first convolution; their number doubles with each further one.
      max_frames: largest number of frames of a clip.
      categories: number of categories, whose logits are the output `'classes'`; 0 for none.
      joined_size: height and width of the map at which the frames are joined.
      norm: normalisation from the second convolution on: 'batch', 'layer' or 'none'.
      image: whether there is a critic of frames as well, as in MoCoGAN, whose loss is added.
      dtype: dtype of the computation; parameters and outputs are float32.

    References:
      Skorokhodov, Tulyakov and Elhoseiny, "StyleGAN-V", arXiv:2112.14683, 2021: three frames, joined at 16x16, in
      StyleGAN2's discriminator, with one embedding for each distance in whole frames and Fourier features of it. Here
      the critic is DCGAN's, and the embedding alone is used.
    """

    frames: int = 3
    width: int = 64
    max_frames: int = 64
    categories: int = 0
    joined_size: int = 16
    norm: str = "none"
    image: bool = False
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, clips: Float[Array, "b t h w c"], *, train: bool) -> dict[str, Array | dict[str, Array]]:
        layers.check_settings(self.dtype, width=self.width, frames=self.frames)
        layers.check_norm(self, self.norm, "batch", "layer", "none")
        b, t = clips.shape[:2]
        if not 2 <= self.frames <= t <= self.max_frames:
            raise InvalidInputError(
                f"clips of {t} frames: this critic sees {self.frames} frames of each, which must be 2 or more and no "
                f"more than a clip has, of clips of at most max_frames={self.max_frames}; take clips of other lengths"
            )
        if self.has_rng("noise"):
            order = jnp.argsort(jax.random.uniform(self.make_rng("noise"), (b, t)), axis=-1)
            index = jnp.sort(order[:, : self.frames], axis=-1)
        else:
            spread = jnp.round(jnp.linspace(0, t - 1, self.frames)).astype(jnp.int32)
            index = jnp.broadcast_to(spread, (b, self.frames))
        x = chosen_frames(clips, index).astype(self.dtype).reshape(b * self.frames, *clips.shape[2:])
        joined = False
        for level in range(_doublings(clips.shape[-2])):
            if not joined and x.shape[1] <= self.joined_size:
                x, joined = self._join(x, b), True
            x = layers.Conv(
                self.width << level, 4, 2, 1, use_bias=self.norm != "batch", dtype=self.dtype,
                kernel_init=nn.initializers.he_normal(), name=f"halved_{level}",
            )(x)  # fmt: skip
            if level:
                x = layers.normalize(x, self.norm, train=train, dtype=self.dtype, name=f"norm_{level}")
            x = layers.leaky_relu(x)
        x = (x if joined else self._join(x, b)).reshape(b, -1)
        features = layers.leaky_relu(nn.Dense(self.width << 2, dtype=self.dtype, name="features")(x))
        features = features.astype(jnp.float32)
        steps = jnp.diff(index, axis=-1)
        embedded = nn.Embed(self.max_frames, self.width, embedding_init=nn.initializers.normal(1.0), name="distance")(
            steps
        ).reshape(b, -1)
        projection = nn.Dense(features.shape[-1], name="projection")(embedded)
        logits = nn.Dense(1, name="logit")(features)[:, 0]
        logits += jnp.sum(projection * features, axis=-1) / math.sqrt(features.shape[-1])
        outputs: dict[str, Array | dict[str, Array]] = {"logits": logits}
        if self.image:
            critic = MoCoGANCritic(1, self.width, 0.0, self.norm, dtype=self.dtype, name="image")
            outputs["logits"] = {"video": logits, "image": _of_frames(self, critic, clips, train=train)}
        return outputs | ({"classes": nn.Dense(self.categories, name="classes")(features)} if self.categories else {})

    def _join(self, x: Array, b: int) -> Array:
        """Concatenates the channels of a clip's frames."""
        x = x.reshape(b, self.frames, *x.shape[1:])
        return jnp.moveaxis(x, 1, 3).reshape(b, *x.shape[2:4], -1)

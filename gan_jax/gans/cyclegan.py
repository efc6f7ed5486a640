"""CycleGAN: translation between two image domains, trained on unpaired images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from gan_jax import core
from gan_jax.core import GANState
from gan_jax.gans.standard import sampler
from gan_jax.gans.terms import logit_metrics
from gan_jax.losses import GANLoss, cycle_consistency, identity_mapping, least_squares
from gan_jax.types import Batch, Game, InvalidInputError, LossOutput, Network, Phase, PRNGKey, Scalar

Pool = dict[str, Array]


def cyclegan(
    generator: Network,
    discriminator: Network,
    *,
    loss: GANLoss = least_squares,
    cycle_weight: float = 5.0,
    identity_weight: float = 2.5,
    pool_size: int = 50,
    learning_rate: float = 2e-4,
    generator_optimizer: optax.GradientTransformation | None = None,
    discriminator_optimizer: optax.GradientTransformation | None = None,
) -> Game:
    """Creates the game of CycleGAN, with two generators in one player and two discriminators in the other.

    The batch has the images `'a'` and `'b'`, `[b, h, w, c]`. G_a translates to domain a, G_b to domain b. The
    generators minimise

        L(D_b(G_b(a))) + L(D_a(G_a(b))) + cycle_weight (|G_a(G_b(a)) - a| + |G_b(G_a(b)) - b|)
        + identity_weight (|G_b(b) - b| + |G_a(a) - a|),

    where |.| is the mean absolute value. Each discriminator sees fakes that are drawn from the new ones and a pool of
    earlier ones (`query_pool`).

    Args:
      generator: generator network, `images -> images`, used twice: with the parameters `'a'` (to domain a) and `'b'`
        (to domain b).
      discriminator: discriminator network, `images -> logits` of any shape, used twice: with the parameters `'a'` and
        `'b'` (of images of that domain).
      loss: adversarial loss L, any pair of `gan_jax.losses`.
      cycle_weight: weight of the cycle-consistency term. The paper's 10 is 5 here, because `least_squares` contains a
        factor 1/2 that the paper's adversarial term of the generators lacks.
      identity_weight: weight of the identity term; the paper's code uses half the cycle weight.
      pool_size: number of earlier fakes kept for each discriminator, rounded up to a multiple of the batch size.
      learning_rate: learning rate of both players' Adam, betas 0.5 and 0.999.
      generator_optimizer: optimiser of the generators; None for that Adam.
      discriminator_optimizer: optimiser of the discriminators; None for that Adam.

    Returns:
      The game, with the players `generator` and `discriminator`. `sample` needs `inputs`, images of domain a, and
      returns their translations to b. `translate` does the same; `translate_back` translates images of b to a.

    Raises:
      InvalidInputError: for a `pool_size` below 1; by the game's `init`, for a batch other than `'a'` and `'b'` of one
        shape.

    References:
      Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", arXiv:1703.10593,
      2017. The authors' code halves the discriminator's loss. `losses.least_squares` contains the factor 1/2, for the
      generator too: all of the generators' loss is half of theirs, which Adam does not notice. Their pool is one list.
      Here each position in the batch has its own share of the pool, so that devices do not exchange images.
    """
    if pool_size < 1:
        raise InvalidInputError(f"pool_size={pool_size}: expected at least 1")
    # Made once, not by `init`: two optimisers compare unequal, and so would the states of two calls.
    generator_optimizer = generator_optimizer or core.adam(learning_rate, 0.5)
    discriminator_optimizer = discriminator_optimizer or core.adam(learning_rate, 0.5)

    def translate(params: PyTree, state: GANState, images: Array, to: str, key: PRNGKey) -> tuple[Array, PyTree]:
        model_state = state.players["generator"].model_state[to]
        return generator.apply(params[to], model_state, images, train=True, key=key)

    def criticize(params: PyTree, state: GANState, images: Array, of: str, key: PRNGKey) -> tuple[Array, PyTree]:
        model_state = state.players["discriminator"].model_state[of]
        return discriminator.apply(params[of], model_state, images, train=True, key=key)

    def generator_loss(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossOutput]:
        critics = state.players["discriminator"].params
        metrics: dict[str, Array] = {}
        model_state = {}
        total = jnp.zeros((), jnp.float32)
        for domain, other, domain_key in zip("ab", "ba", jax.random.split(key), strict=True):
            keys = jax.random.split(domain_key, 5)
            fake, model_state[domain] = translate(params, state, batch[other], domain, keys[0])
            real_logits, _ = criticize(critics, state, batch[domain], domain, keys[1])
            fake_logits, _ = criticize(critics, state, fake, domain, keys[2])
            cycled, _ = translate(params, state, fake, other, keys[3])
            same, _ = translate(params, state, batch[domain], domain, keys[4])
            cycle = jnp.mean(cycle_consistency(batch[other], cycled))
            identity = jnp.mean(identity_mapping(batch[domain], same))
            adversarial = jnp.mean(loss.generator(real_logits, fake_logits))
            weights = state.hparams
            total += adversarial + weights["cycle_weight"] * cycle + weights["identity_weight"] * identity
            metrics |= {f"adversarial_{domain}": adversarial, f"cycle_{other}": cycle, f"identity_{domain}": identity}
        return total, LossOutput(metrics, model_state)

    def discriminator_loss(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossOutput]:
        generators = state.players["generator"].params
        metrics: dict[str, Array] = {}
        model_state, pools = {}, {}
        total = jnp.zeros((), jnp.float32)
        for domain, other, domain_key in zip("ab", "ba", jax.random.split(key), strict=True):
            keys = jax.random.split(domain_key, 4)
            made, _ = translate(generators, state, batch[other], domain, keys[0])
            fake, pools[f"pool_{domain}"] = query_pool(state.aux[f"pool_{domain}"], made, keys[1])
            real_logits, model_state[domain] = criticize(params, state, batch[domain], domain, keys[2])
            fake_logits, _ = criticize(params, state, fake, domain, keys[3])
            total += jnp.mean(loss.discriminator(real_logits, fake_logits))
            logits = logit_metrics(loss, real_logits, fake_logits)
            metrics |= {f"{name}_{domain}": value for name, value in logits.items()}
        return total, LossOutput(metrics, model_state, pools)

    def player(network: Network, key: PRNGKey, images: Batch, optimizer: optax.GradientTransformation):
        made = {
            domain: network.init(domain_key, images[domain])
            for domain, domain_key in zip(("a", "b"), jax.random.split(key), strict=True)
        }
        params, model_state = ({domain: made[domain][i] for domain in made} for i in (0, 1))
        return core.create_player(params, model_state, optimizer)

    def init(key: PRNGKey, batch: Batch) -> GANState:
        if set(batch) != {"a", "b"} or batch["a"].shape != batch["b"].shape:
            shapes = {name: value.shape for name, value in batch.items()}
            raise InvalidInputError(
                f"batch={shapes}: CycleGAN takes 'a' and 'b', images of one shape, and nothing else"
            )
        first = {name: value[:1] for name, value in batch.items()}
        generator_key, discriminator_key = jax.random.split(core.init_key(key))
        players = {
            "generator": player(generator, generator_key, first, generator_optimizer),
            "discriminator": player(discriminator, discriminator_key, first, discriminator_optimizer),
        }
        pools = {f"pool_{domain}": empty_pool(batch[domain], pool_size) for domain in ("a", "b")}
        hparams = {"cycle_weight": cycle_weight, "identity_weight": identity_weight}
        return core.create_state(key, players, aux=pools, hparams=hparams)

    def to_b(params: PyTree, model_state: PyTree, images: Array, **options: Any) -> tuple[Array, PyTree]:
        return generator.apply(params["b"], model_state["b"], images, **options)

    phases = (
        Phase("generator", "generator", generator_loss),
        Phase("discriminator", "discriminator", discriminator_loss, reuse_batch=True),
    )

    def translation(domain: str) -> Callable[[GANState, PRNGKey, Array], Array]:
        def map_images(state: GANState, key: PRNGKey, inputs: Array) -> Array:
            translator = state.players["generator"]
            return generator.apply(
                translator.params[domain], translator.model_state[domain], inputs, train=False, key=key
            )[0]

        return map_images

    functions = {"sample": sampler(Network(generator.init, to_b))}
    functions |= {"translate": translation("b"), "translate_back": translation("a")}
    return Game(init, phases, (), functions)


def empty_pool(images: Float[Array, "b h w c"], size: int) -> Pool:
    """Creates an empty pool: m = ceil(size / b) images for each position in the batch.

    Args:
      images: a batch, for its shape and dtype.
      size: requested number of images in the pool.

    Returns:
      `'images'`, `[m, b, h, w, c]`, zeros; and `'filled'`, how many of the m entries per position are in use, 0.
    """
    per_place = -(-size // images.shape[0])
    return {
        "images": core.constrain_batch(jnp.zeros((per_place, *images.shape), images.dtype), axis=1),
        "filled": jnp.zeros((), jnp.int32),
    }


def query_pool(pool: Pool, images: Float[Array, "b h w c"], key: PRNGKey) -> tuple[Float[Array, "b h w c"], Pool]:
    """Draws the discriminator's fakes: for each image either the image itself or an earlier one from the pool.

    Until the pool is full, each image is stored in the next free entry and returned. After that, with probability 1/2
    it replaces a random stored image of its position, which is returned; otherwise it is returned and not stored.

    Args:
      pool: the pool, from `empty_pool` or the previous call.
      images: new fakes.
      key: random key of the choices.

    Returns:
      The images for the discriminator, and the updated pool.

    References:
      Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial Training",
      arXiv:1612.07828, 2017.
    """
    stored, filled = pool["images"], pool["filled"]
    size, local_indices = stored.shape[:2]
    swap_key, index_key = jax.random.split(key)
    filling = filled < size
    index: Int[Array, " b"] = jnp.where(filling, filled, jax.random.randint(index_key, (local_indices,), 0, size))
    swap = jax.random.bernoulli(swap_key, 0.5, (local_indices,))
    # Masks instead of indexing: all operations are elementwise along the batch axis, so no image changes device.
    chosen = jnp.arange(size)[:, None] == index
    old = jnp.sum(jnp.where(chosen[..., None, None, None], stored, 0), axis=0)
    write = chosen & (filling | swap)
    stored = core.constrain_batch(jnp.where(write[..., None, None, None], images, stored), axis=1)
    returned = jnp.where((swap & ~filling)[:, None, None, None], old, images)
    return returned, {"images": stored, "filled": jnp.minimum(filled + 1, size)}

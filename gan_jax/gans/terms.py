"""Terms for the losses of a game: each function returns one `Term` or several.

A term gets a `View` of the update, and a key. If the discriminator returns a dict, such as
`{'logits': ..., 'features': ..., 'classes': ...}`, a term selects the entries it needs by name. Outputs that are not a
dict are the logits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gan_jax import losses, regularizers
from gan_jax.losses import GANLoss
from gan_jax.types import InvalidInputError, Metrics, PRNGKey, Term, Value, View

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
Pick = Callable[[PyTree], PyTree]


def named(name: str) -> Pick:
    """Creates the function that selects one output of the discriminator by name.

    Outputs that are not a dict are the logits.

    Raises:
      InvalidInputError: when the function is used, for an output that the discriminator does not return.
    """

    def pick(outputs: PyTree) -> PyTree:
        if not isinstance(outputs, Mapping) and name == "logits":
            return outputs
        if not isinstance(outputs, Mapping) or name not in outputs:
            found = ", ".join(outputs) if isinstance(outputs, Mapping) else "logits alone"
            raise InvalidInputError(
                f"the discriminator returns {found}: this game needs {name!r}; return a dict with 'logits' and {name!r}"
            )
        return outputs[name]

    return pick


LOGITS, FEATURES = named("logits"), named("features")


def over_scales(loss: Callable[..., Array], *outputs: PyTree) -> Array:
    """Applies a loss to one array of logits, without reducing it, or to several; then the result is a sum of means."""
    found = jax.tree.leaves(jax.tree.map(loss, *outputs))
    return found[0] if len(found) == 1 else jnp.stack([jnp.mean(x) for x in found]).sum()


def gan_loss(
    loss: GANLoss, *, logits: Pick = LOGITS, keep: float | None = None, ramp: tuple[int, int] = (0, 0)
) -> tuple[Term, Term]:
    """Creates the adversarial terms of both players.

    The logits can be any tree of arrays. For one array the loss is the mean over all its axes. For several arrays
    (scales, or image and video) it is the sum of their means.

    Args:
      loss: adversarial loss, a pair of `gan_jax.losses`.
      logits: function that selects the logits from the discriminator's outputs.
      keep: fraction of the fakes that the generator learns from, those with the highest logits (top-k training). It is
        the initial value of the hyperparameter `keep`, which a schedule can lower. None for all fakes.
      ramp: ramp of the generator's term, `(begin, over)` in images; see `Term`. If the discriminator starts late, the
        ramp should not begin before it does, because an untrained discriminator teaches the generator nothing.

    Returns:
      One term of the discriminator and one of the generator, both with constant weight 1.

    References:
      Sinha et al., "Top-k Training of GANs", arXiv:2002.06224, 2020 (`keep`). The code of pix2pixHD sums over scales,
      as here; the code of SPADE takes the mean over them.
    """

    def discriminator(view: View, key: PRNGKey) -> Value:
        real, fake = logits(view.real_out), logits(view.fake_out)
        return Value(over_scales(loss.discriminator, real, fake), logit_metrics(loss, real, fake))

    def generator(view: View, key: PRNGKey) -> Value:
        real, fake = logits(view.real_out), logits(view.fake_out)
        if keep is None:
            return Value(over_scales(loss.generator, real, fake))
        share = view.state.hparams["keep"]

        def best(real: Array, fake: Array) -> Array:
            score = jnp.mean(fake.reshape(fake.shape[0], -1), axis=1)
            weights = losses.top_k(score, share * fake.shape[0])
            return weights.reshape(-1, *(1,) * (fake.ndim - 1)) * loss.generator(real, fake)

        return Value(over_scales(best, real, fake))

    hparams = {} if keep is None else {"keep": keep}
    return (
        Term("adversarial", DISCRIMINATOR, None, discriminator),
        Term("adversarial", GENERATOR, None, generator, hparams=hparams, ramp=ramp),
    )


def logit_metrics(loss: GANLoss, real_logits: PyTree, fake_logits: PyTree) -> Metrics:
    """Computes metrics of the logits that show whether the discriminator is saturated.

    Args:
      loss: adversarial loss of the discriminator.
      real_logits: logits of reals, an array or a tree of arrays.
      fake_logits: logits of fakes, of the same shapes.

    Returns:
      The means `real_logits` and `fake_logits`, and `saturated_logits`. The latter is the fraction of all logits where
      the discriminator's loss is flat, |dL/dlogit| < 0.01: it learns nothing from such an example and, in a minimax
      game, teaches the generator nothing. For logistic losses these are logits beyond 4.6 on the correct side. For
      several arrays of logits, each metric is the mean over the arrays.
    """

    def measure(real: Array, fake: Array) -> Array:
        slopes = jax.grad(lambda r, f: jnp.sum(loss.discriminator(r, f)), argnums=(0, 1))(real, fake)
        flat = jnp.stack([jnp.mean((jnp.abs(slope) < 0.01).astype(jnp.float32)) for slope in slopes])
        return jnp.stack([jnp.mean(real), jnp.mean(fake), jnp.mean(flat)])

    real_logits, fake_logits = jax.lax.stop_gradient((real_logits, fake_logits))
    found = jax.tree.leaves(jax.tree.map(measure, real_logits, fake_logits))
    real, fake, flat = found[0] if len(found) == 1 else jnp.mean(jnp.stack(found), axis=0)
    return {"real_logits": real, "fake_logits": fake, "saturated_logits": flat}


def sees_reals(loss: GANLoss) -> bool:
    """Whether the generator's loss depends on the real logits; if not, the generator's update needs no new batch."""
    # The traced loss shows which of its inputs are used.
    logits = jax.ShapeDtypeStruct((1,), jnp.float32)
    jaxpr = jax.make_jaxpr(loss.generator)(logits, logits).jaxpr
    read = [variable for equation in jaxpr.eqns for variable in equation.invars] + jaxpr.outvars
    return any(variable is jaxpr.invars[0] for variable in read)


def penalty(
    name: str,
    weight: float,
    function: Callable[[Any, PyTree, PyTree, PRNGKey], Array],
    every: int = 1,
    *,
    logits: Pick = LOGITS,
) -> Term:
    """Creates a term of the discriminator from a penalty on the critic.

    Args:
      name: name of the term.
      weight: weight of the penalty.
      function: penalty, `(critic, real, fake, key) -> [b]`. `critic` maps samples to logits, with label, augmentation
        and model state bound; it augments them as the loss augments the reals.
      every: interval of the term in iterations; above 1 it is a lazy penalty.
      logits: function that selects the logits from the discriminator's outputs.

    Returns:
      The term.
    """
    return Term(
        name, DISCRIMINATOR, weight,
        lambda view, key: Value(function(lambda x: logits(view.critic(x)), view.real, view.fake, key)), every=every,
    )  # fmt: skip


def r1(gamma: float, every: int = 1, *, logits: Pick = LOGITS) -> Term:
    """Creates the R1 penalty: gamma / 2 times the squared gradient norm of the logits at reals.

    It uses `regularizers.zero_centered_penalty`. With `every` = 1 the penalty and the adversarial loss use the
    discriminator with the same augmentation and dropout, as in the official code of R3GAN. XLA can then compute their
    common forward pass once.
    """
    _check_weight("gamma", gamma)

    def value(view: View, key: PRNGKey) -> Value:
        return Value(regularizers.zero_centered_penalty(lambda x: logits(view.critic(x)), view.real))

    return Term("r1", DISCRIMINATOR, gamma / 2, value, every=every)


def r2(gamma: float, every: int = 1, *, logits: Pick = LOGITS) -> Term:
    """Creates the R2 penalty: gamma / 2 times the squared gradient norm of the logits at fakes; otherwise like `r1`."""
    _check_weight("gamma", gamma)

    def value(view: View, key: PRNGKey) -> Value:
        return Value(regularizers.zero_centered_penalty(lambda x: logits(view.fake_critic(x)), view.fake))

    return Term("r2", DISCRIMINATOR, gamma / 2, value, every=every)


def gradient_penalty(weight: float = 10.0, *, one_sided: bool = False, every: int = 1, logits: Pick = LOGITS) -> Term:
    """Creates the gradient penalty of WGAN-GP, or with `one_sided` of WGAN-LP (`regularizers.interpolated_penalty`)."""
    _check_weight("weight", weight)

    def function(critic: Any, real: Array, fake: Array, key: PRNGKey) -> Array:
        return regularizers.interpolated_penalty(critic, real, fake, key, one_sided=one_sided)

    return penalty("gradient_penalty", weight, function, every, logits=logits)


def dragan(weight: float = 10.0, *, scale: float = 0.5, every: int = 1, logits: Pick = LOGITS) -> Term:
    """Creates the gradient penalty of DRAGAN, in a neighbourhood of the reals (`regularizers.dragan_penalty`)."""
    _check_weight("weight", weight)

    def value(view: View, key: PRNGKey) -> Value:
        return Value(regularizers.dragan_penalty(lambda x: logits(view.critic(x)), view.real, key, scale=scale))

    return Term("dragan", DISCRIMINATOR, weight, value, every=every)


def lecam(weight: float = 0.3, *, decay: float = 0.99, begin: int = 0, logits: Pick = LOGITS) -> Term:
    """Creates the LeCam regulariser; its running means are `state.aux['lecam']` (`regularizers.lecam`).

    Args:
      weight: weight of the regulariser.
      decay: decay of the running means.
      begin: number of images after which the regulariser is added to the loss; its means are updated from the start.
      logits: function that selects the logits, one array, from the discriminator's outputs.

    Returns:
      A term of the discriminator.
    """

    def value(view: View, key: PRNGKey) -> Value:
        real, fake = logits(view.real_out), logits(view.fake_out)
        found, memory = regularizers.lecam(real, fake, view.state.aux["lecam"], decay=decay)
        return Value(found, aux={"lecam": memory})

    # Of NumPy: recipes have terms as constants, and JAX's arrays would set up the devices when they are imported.
    zero: Any = np.zeros((), np.float32)
    zeros = regularizers.LeCamState(*(zero for _ in regularizers.LeCamState._fields))
    return Term("lecam", DISCRIMINATOR, weight, value, {"lecam": zeros}, ramp=(begin, 0))


def consistency(
    augment: Callable[[PRNGKey, Array], Array],
    weight: float = 10.0,
    *,
    fake_weight: float | None = None,
    logits: Pick = LOGITS,
) -> tuple[Term, ...]:
    """Creates consistency regularisation: CR, or with `fake_weight` its balanced form bCR (`regularizers.consistency`).

    ||D(x) - D(T(x))||^2. If the game has an augmentation, D applies it to both x and T(x).

    Args:
      augment: augmentation T, `(key, images) -> images`.
      weight: weight of the term on reals; 10 in the paper.
      fake_weight: weight of the term on fakes; 10 in the paper. None for CR, which has no such term.
      logits: function that selects the logits, one array, from the discriminator's outputs.

    Returns:
      Terms of the discriminator.
    """

    def of_reals(view: View, key: PRNGKey) -> Value:
        changed = logits(view.critic(augment(key, view.real)))
        return Value(regularizers.consistency(logits(view.real_out), changed))

    def of_fakes(view: View, key: PRNGKey) -> Value:
        changed = logits(view.fake_critic(augment(key, view.fake)))
        return Value(regularizers.consistency(logits(view.fake_out), changed))

    first = Term("consistency", DISCRIMINATOR, weight, of_reals)
    if fake_weight is None:
        return (first,)
    return first, Term("fake_consistency", DISCRIMINATOR, fake_weight, of_fakes)


def latent_consistency(
    std: float = 0.03, weight: float = 5.0, generator_weight: float = 0.5, *, logits: Pick = LOGITS
) -> tuple[Term, Term]:
    """Creates latent consistency regularisation, zCR (`regularizers.consistency`).

    The discriminator minimises the difference of D(G(z)) and D(G(z + noise)). The generator maximises the difference of
    G(z) and G(z + noise). The first of the generator's inputs must be z.

    Args:
      std: standard deviation of the noise; 0.03 or 0.07 in the paper.
      weight: weight of the discriminator's term.
      generator_weight: weight of the generator's term, positive; its loss is the negative difference.
      logits: function that selects the logits, one array, from the discriminator's outputs.

    Returns:
      One term of each player.
    """

    def moved(view: View, key: PRNGKey) -> PyTree:
        z, *rest = view.inputs
        return view.generate(z + std * jax.random.normal(key, z.shape, z.dtype), *rest)

    def of_critic(view: View, key: PRNGKey) -> Value:
        near = logits(view.fake_critic(moved(view, key)))
        return Value(regularizers.consistency(logits(view.fake_out), near))

    def of_generator(view: View, key: PRNGKey) -> Value:
        return Value(-regularizers.consistency(view.fake, moved(view, key)))

    return (
        Term("latent_consistency", DISCRIMINATOR, weight, of_critic),
        Term("latent_diversity", GENERATOR, generator_weight, of_generator),
    )


def mode_seeking(weight: float = 1.0) -> Term:
    """Creates the generator's term of MSGAN: different latents should give different samples (`losses.mode_seeking`).

    The first of the generator's inputs must be the latents. The other inputs (labels) are the same for both samples.

    Args:
      weight: weight of the term.

    Returns:
      The term.
    """

    def value(view: View, key: PRNGKey) -> Value:
        (z, *rest), (other, *_) = view.inputs, view.draw(key)
        return Value(losses.mode_seeking(view.fake, view.generate(other, *rest), z, other))

    return Term("mode_seeking", GENERATOR, weight, value)


def feature_matching(weight: float = 10.0, *, features: Pick = FEATURES) -> Term:
    """Creates the generator's feature matching term (`losses.feature_matching`), for games with a target image.

    It compares the discriminator's features of each fake with those of the real at the same position in the batch, as
    in pix2pixHD; no gradient flows into the features of reals. In a game from latents to samples the two are unrelated:
    use `mean_feature_matching` there.

    Args:
      weight: weight of the term. pix2pixHD's weight is 10 for a sum over the 4 layers of a scale; here the loss is the
        mean over all layers, so the same weight is 40.
      features: function that selects the features, a list or other tree of arrays, from the discriminator's outputs.

    Returns:
      The term.
    """

    def value(view: View, key: PRNGKey) -> Value:
        return Value(losses.feature_matching(features(view.real_out), features(view.fake_out)))

    return Term("feature_matching", GENERATOR, weight, value)


def mean_feature_matching(weight: float = 1.0, *, features: Pick = FEATURES) -> Term:
    """Creates the generator's term that matches the batch means of features (`losses.mean_feature_matching`).

    Args:
      weight: weight of the term.
      features: function that selects the features from the discriminator's outputs.

    Returns:
      The term.
    """

    def value(view: View, key: PRNGKey) -> Value:
        return Value(losses.mean_feature_matching(features(view.real_out), features(view.fake_out)))

    return Term("mean_feature_matching", GENERATOR, weight, value)


def reconstruction(
    weight: float,
    target: Callable[[View], Array],
    *,
    loss: Callable[[Array, Array], Array] = losses.l1,
    name: str = "reconstruction",
) -> Term:
    """Creates the generator's reconstruction term: the distance of its samples from target images, as in pix2pix.

    Args:
      weight: weight of the distance, which is averaged over all axes; 100 in pix2pix.
      target: `view -> images`, returns the target images, such as `lambda view: view.real`.
      loss: distance, `(samples, targets) -> array`: one of `losses.l1`, `l2`, `charbonnier`.
      name: name of the term.

    Returns:
      A term of the generator.
    """
    return Term(name, GENERATOR, weight, lambda view, key: Value(loss(view.fake, target(view))))


def perceptual(
    weight: float,
    target: Callable[[View], Array],
    features: Callable[[PyTree, Array], PyTree],
    *,
    frozen: str,
    name: str = "perceptual",
) -> Term:
    """Creates the generator's perceptual term: the distance of its samples from targets in the features of a network.

    It uses `losses.perceptual` with a frozen network.

    Args:
      weight: weight of the term.
      target: `view -> images`, returns the target images.
      features: frozen network, `(params, images) -> features`.
      frozen: name of the network's parameters in `state.frozen`; see `runtime.Experiment.frozen`.
      name: name of the term.

    Returns:
      A term of the generator.
    """

    def value(view: View, key: PRNGKey) -> Value:
        params = view.state.frozen[frozen]
        return Value(losses.perceptual(features(params, target(view)), features(params, view.fake)))

    return Term(name, GENERATOR, weight, value)


def distance(
    loss: Callable[[Array, Array], Array] = losses.maximum_mean_discrepancy,
    weight: float = 1.0,
    *,
    features: Pick = LOGITS,
    name: str = "distance",
) -> tuple[Term, Term]:
    """Creates the terms of a distance between distributions, as in MMD GAN: G minimises it, and D maximises it.

    Args:
      loss: distance, `(real_features, fake_features) -> distance`, such as `losses.energy_distance`.
      weight: weight of both players' terms.
      features: function that selects the features, `[b, d]`, from the discriminator's outputs.
      name: name of both terms.

    Returns:
      One term of the discriminator and one of the generator. They can replace `gan_loss` or be added to it.

    References:
      Li et al., "MMD GAN", arXiv:1705.08584, 2017; Bellemare et al., "The Cramer Distance", arXiv:1705.10743, 2017.
    """

    def of(sign: float) -> Callable[[View, PRNGKey], Value]:
        return lambda view, key: Value(sign * loss(features(view.real_out), features(view.fake_out)))

    return Term(name, DISCRIMINATOR, weight, of(-1.0)), Term(name, GENERATOR, weight, of(1.0))


def orthogonal(
    weight: float = 1e-4,
    player: str = GENERATOR,
    *,
    kernels: Callable[[PyTree], PyTree] = lambda params: params,
    off_diagonal: bool = True,
) -> Term:
    """Creates orthogonal regularisation of a player's kernels, as in BigGAN (`regularizers.orthogonal`).

    Args:
      weight: weight of the term; BigGAN's 1e-4 is 5e-5 here, because of a factor 2 in the gradient.
      player: name of the player.
      kernels: function that selects the kernels from the player's parameters; BigGAN leaves out the embeddings.
      off_diagonal: whether to penalise only products of different columns, and leave the columns' lengths free.

    Returns:
      The term.
    """

    def value(view: View, key: PRNGKey) -> Value:
        found = kernels(view.state.players[player].params)
        return Value(regularizers.orthogonal(found, off_diagonal=off_diagonal))

    return Term("orthogonal", player, weight, value)


def _check_weight(name: str, value: float) -> None:
    """Refuses a negative or NaN weight."""
    if not value >= 0:
        raise InvalidInputError(f"{name}={value}: expected a weight of at least 0")

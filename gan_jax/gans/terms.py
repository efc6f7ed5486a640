"""Terms for the losses of a game: each function returns a `Term`, or one for each player.

A term gets a `View` of the update and a key. What it takes from the discriminator's outputs it takes by name where they
are a dict, such as `{'logits': ..., 'features': ..., 'classes': ...}`; outputs that are no dict are the logits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gan_jax import losses, regularizers
from gan_jax.losses import GANLoss
from gan_jax.types import InvalidInputError, Metrics, PRNGKey, Term, Value, View

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
Pick = Callable[[PyTree], PyTree]


def named(name: str) -> Pick:
    """Takes one output of the discriminator by name; the logits are all of an output that is no dict.

    Raises:
      InvalidInputError: when used, for an output that the discriminator does not give.
    """

    def pick(outputs: PyTree) -> PyTree:
        if not isinstance(outputs, Mapping) and name == "logits":
            return outputs
        if not isinstance(outputs, Mapping) or name not in outputs:
            found = ", ".join(outputs) if isinstance(outputs, Mapping) else "logits alone"
            raise InvalidInputError(
                f"the discriminator gives {found}: this game needs {name!r}; return a dict with 'logits' and {name!r}"
            )
        return outputs[name]

    return pick


LOGITS, FEATURES = named("logits"), named("features")


def _over_scales(loss: Callable[..., Array], *outputs: PyTree) -> Array:
    """A loss of logits, unreduced; of several scales the sum of their means."""
    found = jax.tree.leaves(jax.tree.map(loss, *outputs))
    return found[0] if len(found) == 1 else jnp.stack([jnp.mean(x) for x in found]).sum()


def gan_loss(
    loss: GANLoss, *, logits: Pick = LOGITS, keep: float | None = None, ramp: tuple[int, int] = (0, 0)
) -> tuple[Term, Term]:
    """The adversarial loss of both players, of any tree of logits.

    Over all axes of one array of logits the mean is taken, over several arrays (scales, or image and video) the sum of
    their means.

    Args:
      loss: a pair from `gan_jax.losses`.
      logits: takes them from the discriminator's outputs.
      keep: share of the fakes, those with the highest logits, that the generator learns from (top-k training); it is
        the hyperparameter `keep` then, to be lowered by a schedule. None for all.
      ramp: of the generator's term; see `Term`. A discriminator that starts late teaches nothing before, so let this
        begin no earlier.

    Returns:
      A term of the discriminator and one of the generator, of constant weight 1.

    References:
      Sinha et al., "Top-k Training of GANs", arXiv:2002.06224, 2020 (`keep`). pix2pixHD's code adds up scales, as here;
      SPADE's takes their mean.
    """

    def discriminator(view: View, key: PRNGKey) -> Value:
        real, fake = logits(view.real_out), logits(view.fake_out)
        return Value(_over_scales(loss.discriminator, real, fake), logit_metrics(loss, real, fake))

    def generator(view: View, key: PRNGKey) -> Value:
        real, fake = logits(view.real_out), logits(view.fake_out)
        if keep is None:
            return Value(_over_scales(loss.generator, real, fake))
        share = view.state.hparams["keep"]

        def best(real: Array, fake: Array) -> Array:
            score = jnp.mean(fake.reshape(fake.shape[0], -1), axis=1)
            weights = losses.top_k(score, share * fake.shape[0])
            return weights.reshape(-1, *(1,) * (fake.ndim - 1)) * loss.generator(real, fake)

        return Value(_over_scales(best, real, fake))

    hparams = {} if keep is None else {"keep": keep}
    return (
        Term("adversarial", DISCRIMINATOR, None, discriminator),
        Term("adversarial", GENERATOR, None, generator, hparams=hparams, ramp=ramp),
    )


def logit_metrics(loss: GANLoss, real_logits: PyTree, fake_logits: PyTree) -> Metrics:
    """What the logits tell of a discriminator's health.

    Args:
      loss: whose discriminator.
      real_logits: an array, or a tree of them.
      fake_logits: of the same shapes.

    Returns:
      `real_logits` and `fake_logits`, their means; and `saturated_logits`, the share of all of them where the
      discriminator's loss is flat, |dL/dlogit| < 0.01, so that it learns nothing from the example and, in a minimax
      game, teaches the generator nothing. With the logistic losses these are logits beyond 4.6 on the right side. Of
      several arrays of logits, the means of these.
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
    """Whether the generator's loss depends on the real logits; if not, it needs no batch of its own."""
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
    """A term of the discriminator from a penalty on the critic.

    Args:
      name: see `Term`.
      weight: see `Term`.
      function: `(critic, real, fake, key) -> [b]`; `critic` gives the logits, with label, augmentation and model state
        bound, and sees reals as they are seen by the loss.
      every: see `Term`.
      logits: takes them from the discriminator's outputs.

    Returns:
      The term.
    """
    return Term(
        name, DISCRIMINATOR, weight,
        lambda view, key: Value(function(lambda x: logits(view.critic(x)), view.real, view.fake, key)), every=every,
    )  # fmt: skip


def r1(gamma: float, every: int = 1, *, logits: Pick = LOGITS) -> Term:
    """Gamma / 2 times the squared gradient norm of the logits at reals (`regularizers.zero_centered_penalty`).

    In the phase of the loss the discriminator is as it was for the loss: the same augmentation and dropout, as in the
    official code of R3GAN, so that XLA computes their common forward pass once.
    """
    _check_weight("gamma", gamma)

    def value(view: View, key: PRNGKey) -> Value:
        return Value(regularizers.zero_centered_penalty(lambda x: logits(view.critic(x)), view.real))

    return Term("r1", DISCRIMINATOR, gamma / 2, value, every=every)


def r2(gamma: float, every: int = 1, *, logits: Pick = LOGITS) -> Term:
    """Gamma / 2 times the squared gradient norm at fakes (`regularizers.zero_centered_penalty`); see `r1`."""
    _check_weight("gamma", gamma)

    def value(view: View, key: PRNGKey) -> Value:
        return Value(regularizers.zero_centered_penalty(lambda x: logits(view.fake_critic(x)), view.fake))

    return Term("r2", DISCRIMINATOR, gamma / 2, value, every=every)


def gradient_penalty(weight: float = 10.0, *, one_sided: bool = False, every: int = 1, logits: Pick = LOGITS) -> Term:
    """The penalty of WGAN-GP, or with `one_sided` of WGAN-LP (`regularizers.interpolated_penalty`)."""
    _check_weight("weight", weight)

    def function(critic: Any, real: Array, fake: Array, key: PRNGKey) -> Array:
        return regularizers.interpolated_penalty(critic, real, fake, key, one_sided=one_sided)

    return penalty("gradient_penalty", weight, function, every, logits=logits)


def dragan(weight: float = 10.0, *, scale: float = 0.5, every: int = 1, logits: Pick = LOGITS) -> Term:
    """The penalty of DRAGAN, around reals (`regularizers.dragan_penalty`)."""
    _check_weight("weight", weight)

    def value(view: View, key: PRNGKey) -> Value:
        return Value(regularizers.dragan_penalty(lambda x: logits(view.critic(x)), view.real, key, scale=scale))

    return Term("dragan", DISCRIMINATOR, weight, value, every=every)


def lecam(weight: float = 0.3, *, decay: float = 0.99, begin: int = 0, logits: Pick = LOGITS) -> Term:
    """The LeCam regulariser; its running means are `state.aux['lecam']` (`regularizers.lecam`).

    Args:
      weight: see `Term`.
      decay: of the running means.
      begin: images before it counts; its means run from the start.
      logits: takes them from the discriminator's outputs, one array.

    Returns:
      A term of the discriminator.
    """

    def value(view: View, key: PRNGKey) -> Value:
        real, fake = logits(view.real_out), logits(view.fake_out)
        found, memory = regularizers.lecam(real, fake, view.state.aux["lecam"], decay=decay)
        return Value(found, aux={"lecam": memory})

    return Term("lecam", DISCRIMINATOR, weight, value, {"lecam": regularizers.init_lecam()}, ramp=(begin, 0))


def consistency(
    augment: Callable[[PRNGKey, Array], Array],
    weight: float = 10.0,
    *,
    fake_weight: float | None = None,
    logits: Pick = LOGITS,
) -> tuple[Term, ...]:
    """Consistency regularisation, CR; with a weight for fakes its balanced form, bCR (`regularizers.consistency`).

    ||D(x) - D(T(x))||^2, on top of any augmentation that the game has.

    Args:
      augment: T, `(key, images) -> images`.
      weight: for reals; the paper's is 10.
      fake_weight: for fakes; the paper's is 10. None for CR.
      logits: takes them from the discriminator's outputs, one array.

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
    """Latent consistency regularisation, zCR (`regularizers.consistency`).

    The discriminator shall say the same of G(z) and G(z + noise), the generator shall make them differ: its weight
    counts negatively. The first of the generator's inputs is z.

    Args:
      std: of the noise; the paper's is 0.03 or 0.07.
      weight: of the discriminator's term.
      generator_weight: of the generator's term.
      logits: takes them from the discriminator's outputs, one array.

    Returns:
      A term of each player.
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
    """MSGAN's term of the generator: other latents shall give another sample (`losses.mode_seeking`).

    The first of the generator's inputs are the latents; the others (labels) are the same for both samples.

    Args:
      weight: see `Term`.

    Returns:
      The term.
    """

    def value(view: View, key: PRNGKey) -> Value:
        (z, *rest), (other, *_) = view.inputs, view.draw(key)
        return Value(losses.mode_seeking(view.fake, view.generate(other, *rest), z, other))

    return Term("mode_seeking", GENERATOR, weight, value)


def feature_matching(weight: float = 10.0, *, features: Pick = FEATURES) -> Term:
    """The generator's term on all the discriminator's features (`losses.feature_matching`); reals are not moved.

    Each fake is compared with the real of its place in the batch: for games with a target, such as pix2pixHD. From
    latents to samples that pulls a fake towards a real that it has nothing to do with: take `mean_feature_matching`.

    Args:
      weight: see `Term`. pix2pixHD's 10 is of the sum over the 4 layers of a scale: 40 here, where all have one mean.
      features: takes them from the discriminator's outputs: a list of arrays, or any tree.

    Returns:
      The term.
    """

    def value(view: View, key: PRNGKey) -> Value:
        return Value(losses.feature_matching(features(view.real_out), features(view.fake_out)))

    return Term("feature_matching", GENERATOR, weight, value)


def mean_feature_matching(weight: float = 1.0, *, features: Pick = FEATURES) -> Term:
    """The generator's term on the means of the discriminator's features (`losses.mean_feature_matching`).

    Args:
      weight: see `Term`.
      features: takes them from the discriminator's outputs.

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
    """The distance of the generator's outputs from targets, as in pix2pix.

    Args:
      weight: of the mean over all axes; 100 in pix2pix.
      target: `view -> images`, such as `lambda view: view.real`.
      loss: `(outputs, targets) -> array`, one of `losses.l1`, `l2`, `charbonnier`.
      name: see `Term`.

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
    """The distance of features of the generator's outputs from those of targets (`losses.perceptual`).

    Args:
      weight: see `Term`.
      target: `view -> images`.
      features: `(params, images) -> features`, a frozen network.
      frozen: its name in `state.frozen`; see `runtime.Experiment.frozen`.
      name: see `Term`.

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
    """A distance of distributions that the generator makes small and the discriminator large, as in MMD GAN.

    Args:
      loss: `(real_features, fake_features) -> distance`, such as `losses.energy_distance`.
      weight: of both players' terms.
      features: takes them, `[b, d]`, from the discriminator's outputs.
      name: see `Term`.

    Returns:
      A term of the discriminator and one of the generator, in place of `gan_loss` or beside it.

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
    """Orthogonal regularisation of a player's kernels, as in BigGAN (`regularizers.orthogonal`).

    Args:
      weight: see `Term`; BigGAN's 1e-4 is 5e-5 here.
      player: whose.
      kernels: takes them from its parameters; BigGAN leaves out the embeddings.
      off_diagonal: see there.

    Returns:
      The term.
    """

    def value(view: View, key: PRNGKey) -> Value:
        found = kernels(view.state.players[player].params)
        return Value(regularizers.orthogonal(found, off_diagonal=off_diagonal))

    return Term("orthogonal", player, weight, value)


def _check_weight(name: str, value: float) -> None:
    if not value >= 0:
        raise InvalidInputError(f"{name}={value}: the weight of a penalty is at least 0")

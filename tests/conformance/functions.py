"""The cases of the conformance suite: every public function of the pure packages, as a function of arrays alone."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gan_jax import augment, losses, ops, regularizers

BATCH = 8
CLASSES = 3
KEY = jax.random.key(7)
LABELS = jnp.arange(BATCH) % CLASSES


@dataclasses.dataclass(frozen=True)
class Case:
    """One way of calling one public function.

    Attributes:
      of: public names that the case covers, each as `package.name`.
      function: function of arrays; every other argument is bound.
      arguments: `key -> arrays`, float32 and integer arrays, at points without a kink nearby.
      output: shape of the output: 'elementwise' (that of the first argument), 'example' ([b]) or 'scalar'.
      batched: number of arguments, from the first, that have a batch axis.
      coupled: whether an example's value depends on the other examples.
      random: whether the function draws per example; then a permuted batch does not simply give permuted values.
      signs: signs of the derivatives with respect to the first arguments, -1, 0 or 1, at `arguments`; None skips one.
      stopped: whether a stop_gradient makes the derivative differ from finite differences of values. (An argument that
        no gradient reaches has the sign 0, and is left out of the differences.)
      extremes: whether the formula is finite in float32 if every number is 1e4 or -1e4.
    """

    of: str
    function: Callable[..., Array]
    arguments: Callable[[Array], tuple[Array, ...]]
    output: str
    batched: int = 2
    coupled: bool = False
    random: bool = False
    signs: tuple[int | None, ...] = ()
    stopped: bool = False
    extremes: bool = True


def normals(*shapes: tuple[int, ...], scale: float = 1.0) -> Callable[[Array], tuple[Array, ...]]:
    def arguments(key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, len(shapes))
        return tuple(scale * jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True))

    return arguments


def labelled(arguments: Callable[[Array], tuple[Array, ...]]) -> Callable[[Array], tuple[Array, ...]]:
    return lambda key: (*arguments(key), jax.random.permutation(key, LABELS))


def moderate_logits(key: Array) -> tuple[Array, Array]:
    """Draws logits between all hinges' corners and all squares' targets: D raises those of reals, lowers fakes'."""
    r, f = jax.random.split(key)
    return tuple(jax.random.uniform(k, (BATCH,), minval=0.1, maxval=0.4) for k in (r, f))  # type: ignore[return-value]


LOGITS = normals((BATCH,), (BATCH,), scale=3.0)
FEATURES = normals((BATCH, 4), (BATCH, 4))
IMAGES = normals((BATCH, 6, 6, 2), (BATCH, 6, 6, 2))
WEIGHTS = {"a": 1.0, "b": 3.0}
EXPONENTIAL = {"kl", "reverse_kl", "squared_hellinger"}
RELATIVISTIC = {name for name in losses.__all__ if name.startswith("relativistic")}


def pairs() -> dict[str, Case]:
    """Returns the cases of both players of every adversarial loss."""
    found: dict[str, tuple[str, losses.GANLoss]] = {}
    for name in losses.__all__:
        if isinstance(getattr(losses, name), losses.GANLoss):
            found[name] = (name, getattr(losses, name))
    for name in ("kl", "reverse_kl", "pearson", "squared_hellinger", "jensen_shannon", "gan"):
        for practical in (True, False):
            key = f"f_divergence_{name}" + ("" if practical else "_exact")
            found[key] = ("f_divergence", losses.f_divergence(name, practical=practical))
    found["energy_based"] = ("energy_based", losses.energy_based(1.0))
    cases = {}
    for key, (name, loss) in found.items():
        up = -1 if name == "energy_based" else 1  # D raises the logits of reals, and lowers their energies
        common: dict[str, Any] = {
            "output": "elementwise",
            "coupled": "average" in name,
            "extremes": not any(key.startswith(f"f_divergence_{exponential}") for exponential in EXPONENTIAL),
        }
        of = f"losses.{name}"
        real = up if name in RELATIVISTIC else 0
        cases[f"{key}.discriminator"] = Case(of, loss.discriminator, moderate_logits, signs=(-up, up), **common)
        cases[f"{key}.generator"] = Case(of, loss.generator, moderate_logits, signs=(real, -up), **common)
    return cases


def critic(w: Array, x: Array) -> Array:
    """A smooth, nonlinear critic, with values `[b]`."""
    return jnp.sum(jnp.tanh(x.reshape(x.shape[0], -1) @ w.astype(x.dtype)) ** 2, -1)


def lecam(real: Array, fake: Array) -> Array:
    _, state = regularizers.lecam(real + 1, fake - 1, regularizers.init_lecam())
    return regularizers.lecam(real, fake, state)[0]


def lecam_fixed(real: Array, fake: Array) -> Array:
    state = regularizers.LeCamState(jnp.float32(0.5), jnp.float32(-0.5), jnp.float32(1.0))
    return regularizers.lecam(real, fake, state, decay=1.0)[0]


def path_length(w: Array, v: Array, decay: float) -> Array:
    def synthesize(w: Array) -> Array:
        return jnp.tanh(w @ v.astype(w.dtype)).reshape(-1, 4, 4, 1)

    return regularizers.path_length(synthesize, w, KEY, jnp.ones(()), decay=decay)[0]


def class_case(name: str, k: int = CLASSES, **bound: Any) -> Case:
    function = getattr(losses, name)
    return Case(
        f"losses.{name}",
        lambda logits, label: function(logits, label, **bound),
        labelled(normals((BATCH, k))),
        "example",
    )


BOTTLENECKS = (
    "Bottleneck", "CodebookState", "count_codes", "finite_scalar_codes", "finite_scalar_quantize",
    "gaussian_bottleneck", "init_codebook", "kmeans", "lookup_free_codes", "lookup_free_quantize", "perplexity",
    "straight_through", "update_codebook", "vector_quantize",
)  # fmt: skip


def near_codes(key: Array) -> tuple[Array, Array]:
    """Draws vectors near to codes, so that rounding them does not change their choice, and the codes."""
    codes, near, which = jax.random.split(key, 3)
    codebook = jax.random.normal(codes, (5, 4))
    chosen = codebook[jax.random.randint(which, (BATCH,), 0, 5)]
    return chosen + 0.05 * jax.random.normal(near, (BATCH, 4)), codebook


def near_levels(key: Array) -> tuple[Array]:
    """Draws numbers that round to -1, 0 and 1 of five levels, away from the edges between these."""
    near, which = jax.random.split(key)
    levels = 0.55 * jax.random.randint(which, (BATCH, 4), -1, 2)
    return (levels + 0.02 * jax.random.normal(near, (BATCH, 4)),)


def away_from_zero(key: Array) -> tuple[Array]:
    x = jax.random.normal(key, (BATCH, 5))
    return (x + jnp.sign(x),)


def update_codebook(z: Array, codes: Array) -> Array:
    ids = ops.vector_quantize(z, codes).ids
    return jnp.sum(ops.update_codebook(ops.init_codebook(codes), z, ids, KEY, threshold=0.0)[0].codes ** 2)


def bottlenecks() -> dict[str, Case]:
    """Returns the cases of the bottlenecks of tokenizers."""
    vq, lfq, fsq = ops.vector_quantize, ops.lookup_free_quantize, ops.finite_scalar_quantize
    common: dict[str, Any] = {"batched": 1}

    def codes(z: Array) -> Array:
        levels = (5, 5, 5, 5)
        return (ops.finite_scalar_codes(fsq(z, levels).ids, levels) + ops.lookup_free_codes(lfq(z).ids, 4)).mean(-1)

    def used(counts: Array) -> Array:
        return ops.perplexity(counts) + ops.perplexity(ops.count_codes(jnp.argmax(counts, -1)[:1], 5))

    return {
        "vector_quantize": Case(
            "ops.vector_quantize ops.straight_through ops.Bottleneck", lambda z, c: vq(z, c).codes, near_codes,
            "elementwise", stopped=True, signs=(1, 0), **common,
        ),
        "vector_quantize_commitment": Case(
            "ops.vector_quantize", lambda z, c: vq(z, c).losses["commitment"], near_codes, "example",
            signs=(None, 0), **common,
        ),
        "vector_quantize_entropy": Case(
            "ops.vector_quantize", lambda z, c: vq(z, c, temperature=2.0, normalize=True).losses["entropy"],
            near_codes, "example", coupled=True, **common,
        ),
        "finite_scalar_quantize": Case(
            "ops.finite_scalar_quantize", lambda z: fsq(z, (5, 5, 5, 5)).codes, near_levels, "elementwise",
            stopped=True, signs=(1,), **common,
        ),
        "codes_of_ids": Case(
            "ops.finite_scalar_codes ops.lookup_free_codes", codes, near_levels, "example", signs=(0,), **common
        ),
        "lookup_free_quantize": Case(
            "ops.lookup_free_quantize", lambda z: lfq(z).codes, away_from_zero, "elementwise", stopped=True,
            signs=(1,), **common,
        ),
        "lookup_free_quantize_losses": Case(
            "ops.lookup_free_quantize", lambda z: sum(lfq(z, temperature=2.0, group=3).losses.values()),
            away_from_zero, "example", coupled=True, **common,
        ),
        "gaussian_bottleneck": Case(
            "ops.gaussian_bottleneck", lambda x: ops.gaussian_bottleneck(x).losses["kl"], normals((BATCH, 6)),
            "example", **common,
        ),
        "update_codebook": Case(
            "ops.update_codebook ops.init_codebook ops.CodebookState", update_codebook, near_codes, "scalar",
            coupled=True, signs=(0, None), **common,
        ),
        "kmeans": Case(
            "ops.kmeans", lambda z: jnp.sum(ops.kmeans(z, 2, KEY, iterations=2) ** 2), near_codes_of_two, "scalar",
            coupled=True, random=True, signs=(0,), **common,
        ),
        "perplexity": Case(
            "ops.count_codes ops.perplexity", used, lambda key: (1.0 + jax.random.uniform(key, (BATCH, 5)),),
            "example", extremes=False, **common,
        ),
    }  # fmt: skip


def near_codes_of_two(key: Array) -> tuple[Array]:
    """Draws vectors in two clusters that are far apart."""
    centres = jnp.where(jnp.arange(BATCH) % 2 == 0, 8.0, -8.0)[:, None]
    return (centres + jax.random.normal(key, (BATCH, 4)),)


CASES: dict[str, Case] = {
    **pairs(),
    **bottlenecks(),
    # reconstruction
    **{
        name: Case(f"losses.{name}", getattr(losses, name), IMAGES, "elementwise")
        for name in ("l1", "l2", "cycle_consistency", "identity_mapping")
    },
    "charbonnier": Case(
        "losses.charbonnier", lambda a, b: losses.charbonnier(a, b, epsilon=0.5), IMAGES, "elementwise"
    ),
    "feature_matching": Case(
        "losses.feature_matching",
        lambda a, b, c, d: losses.feature_matching({"1": a, "2": c}, {"1": b, "2": d}),
        normals(*[(BATCH, 4), (BATCH, 4), (BATCH, 3, 5), (BATCH, 3, 5)]),
        "example",
        batched=4,
        signs=(0, None, 0),  # no gradient into the reals
    ),
    "mean_feature_matching": Case(
        "losses.mean_feature_matching", losses.mean_feature_matching, FEATURES, "scalar", coupled=True, signs=(0,)
    ),
    "perceptual": Case("losses.perceptual", losses.perceptual, IMAGES, "example"),
    "perceptual_lpips": Case(
        "losses.perceptual",
        lambda a, b, w: losses.perceptual([a], [b], weights=[w], normalize=True),
        normals((BATCH, 3, 3, 4), (BATCH, 3, 3, 4), (4,)),
        "example",
    ),
    # auxiliary
    "auxiliary_classifier": class_case("auxiliary_classifier"),
    "multi_hinge": class_case("multi_hinge"),
    "auxiliary_discriminative_real": class_case("auxiliary_discriminative", 2 * CLASSES, real=True),
    "auxiliary_discriminative_fake": class_case("auxiliary_discriminative", 2 * CLASSES, real=False),
    "auxiliary_discriminative_generator": class_case("auxiliary_discriminative_generator", 2 * CLASSES),
    "discrete_mutual_information": class_case("discrete_mutual_information"),
    "gaussian_mutual_information": Case(
        "losses.gaussian_mutual_information",
        # the log standard deviation comes from a bounded head: exp(1e4) is infinite in any formula
        lambda mean, log_std, code: losses.gaussian_mutual_information(mean, jnp.tanh(log_std), code),
        normals((BATCH, 2), (BATCH, 2), (BATCH, 2)),
        "example",
        batched=3,
    ),
    "mode_seeking": Case(
        "losses.mode_seeking",
        losses.mode_seeking,
        normals((BATCH, 3, 3, 1), (BATCH, 3, 3, 1), (BATCH, 4), (BATCH, 4)),
        "example",
        batched=4,
    ),
    "conditional_contrastive": Case(
        "losses.conditional_contrastive",
        losses.conditional_contrastive,
        labelled(FEATURES),
        "example",
        batched=3,
        coupled=True,
    ),
    "data_to_data_cross_entropy": Case(
        "losses.data_to_data_cross_entropy",
        losses.data_to_data_cross_entropy,
        labelled(FEATURES),
        "example",
        batched=3,
        coupled=True,
    ),
    "patch_nce": Case(
        "losses.patch_nce",
        lambda q, k: jnp.mean(losses.patch_nce(q, k), axis=1),
        normals((BATCH, 5, 3), (BATCH, 5, 3)),
        "example",
        signs=(None, 0),  # no gradient into the patches of the input
    ),
    # distances
    "maximum_mean_discrepancy": Case(
        "losses.maximum_mean_discrepancy losses.rational_quadratic_kernel",
        losses.maximum_mean_discrepancy,
        FEATURES,
        "scalar",
        coupled=True,
    ),
    "maximum_mean_discrepancy_gaussian": Case(
        "losses.maximum_mean_discrepancy losses.gaussian_kernel",
        lambda a, b: losses.maximum_mean_discrepancy(a, b, kernel=losses.gaussian_kernel(), unbiased=False),
        FEATURES,
        "scalar",
        coupled=True,
    ),
    "energy_distance": Case("losses.energy_distance", losses.energy_distance, FEATURES, "scalar", coupled=True),
    # the evidence lower bound
    "gaussian_kl": Case(
        "losses.gaussian_kl",
        # encoders clip the log variance: exp(1e4) is infinite in any formula
        lambda mean, log_variance: losses.gaussian_kl(mean, jnp.clip(log_variance, -30.0, 20.0)),
        normals((BATCH, 4), (BATCH, 4)),
        "example",
    ),
    "gaussian_nll": Case("losses.gaussian_nll", losses.gaussian_nll, IMAGES, "example", coupled=True, stopped=True),
    "gaussian_nll_fixed": Case("losses.gaussian_nll", lambda x, y: losses.gaussian_nll(x, y, 0.3), IMAGES, "example"),
    "bernoulli_nll": Case("losses.bernoulli_nll", losses.bernoulli_nll, IMAGES, "example"),
    # weights
    "top_k": Case(
        "losses.top_k", lambda logits: losses.top_k(logits, 3), normals((BATCH,)), "example", batched=1, coupled=True
    ),
    "adaptive_weight": Case(
        "losses.adaptive_weight", losses.adaptive_weight, FEATURES, "scalar", coupled=True, signs=(0, 0)
    ),
    "output_gradients": Case(
        "losses.output_gradients",
        lambda y, w: losses.output_gradients({"critic": lambda y: critic(w, y)}, y)[1]["critic"],
        normals((BATCH, 4), (4, 3)),
        "elementwise",
        batched=1,
        coupled=True,  # by the 1 / b of the mean
        signs=(0, 0),
    ),
    "steer": Case("losses.steer", losses.steer, IMAGES, "scalar", coupled=True, signs=(None, 0)),
    "balance": Case(
        "losses.balance losses.BalancerState losses.init_balancer",
        lambda a, b: losses.balance({"a": a, "b": b}, WEIGHTS, losses.init_balancer(WEIGHTS))[0],
        IMAGES,
        "elementwise",
        coupled=True,
        signs=(0, 0),
    ),
    "normalize_gradient": Case(
        "losses.normalize_gradient",
        lambda g: losses.normalize_gradient(g, jnp.zeros(()))[0],
        normals((BATCH, 6)),
        "elementwise",
        batched=1,
        coupled=True,
        signs=(0,),
    ),
    "ramp": Case(
        "losses.ramp", lambda step: losses.ramp(step, -9.0, 20.0), normals((BATCH,)), "elementwise", batched=1
    ),
    # regularizers
    "zero_centered_penalty": Case(
        "regularizers.zero_centered_penalty",
        lambda x, w: regularizers.zero_centered_penalty(lambda x: critic(w, x), x),
        normals((BATCH, 4), (4, 3)),
        "example",
        batched=1,
    ),
    **{
        f"interpolated_penalty_{'one' if one_sided else 'two'}_sided": Case(
            "regularizers.interpolated_penalty",
            lambda x, y, w, one_sided=one_sided: regularizers.interpolated_penalty(
                lambda x: critic(w, x), x, y, KEY, one_sided=one_sided
            ),
            normals((BATCH, 4), (BATCH, 4), (4, 3)),
            "example",
            random=True,
        )
        for one_sided in (False, True)
    },
    "dragan_penalty": Case(
        "regularizers.dragan_penalty",
        lambda x, w: regularizers.dragan_penalty(lambda x: critic(w, x), x, KEY),
        normals((BATCH, 4), (4, 3)),
        "example",
        batched=1,
        coupled=True,
        random=True,
    ),
    "gradient_normalized": Case(
        "regularizers.gradient_normalized",
        lambda x, w: regularizers.gradient_normalized(lambda x: critic(w, x))(x),
        normals((BATCH, 4), (4, 3)),
        "example",
        batched=1,
    ),
    "latent_optimization": Case(
        "regularizers.latent_optimization",
        lambda z, w: regularizers.latent_optimization(lambda z: critic(w, z), z, step=0.1, damping=1.0),
        normals((BATCH, 4), (4, 3), scale=0.2),
        "elementwise",
        batched=1,
    ),
    "lecam": Case(
        "regularizers.lecam regularizers.init_lecam regularizers.LeCamState",
        lecam,
        LOGITS,
        "example",
        coupled=True,
        stopped=True,
    ),
    "lecam_fixed": Case("regularizers.lecam", lecam_fixed, LOGITS, "example"),
    **{
        f"path_length_{decay}": Case(
            "regularizers.path_length",
            lambda w, v, decay=decay: path_length(w, v, decay),
            normals((BATCH, 4), (4, 16), scale=0.3),
            "example",
            batched=1,
            coupled=True,
            random=True,
            stopped=decay > 0,
        )
        for decay in (0.0, 0.01)
    },
    "consistency": Case("regularizers.consistency", regularizers.consistency, IMAGES, "example"),
    # augmentation: random for each example, and linear or affine in the images
    **{
        name: Case(
            f"augment.{name}",
            lambda x, name=name: getattr(augment, name)(KEY, x, 0.7),
            normals((BATCH, 8, 8, 3)),
            "elementwise",
            batched=1,
            random=True,
        )
        for name in ("blit", "color", "corrupt", "cutout", "filter_bands", "geometry", "transform_color", "translation")
    },
    "diff_augment": Case(
        "augment.diff_augment",
        lambda x: augment.diff_augment()(KEY, x, 0.7),
        normals((BATCH, 8, 8, 3)),
        "elementwise",
        batched=1,
        random=True,
    ),
    "ada_pipeline": Case(
        "augment.ada_pipeline augment.OPERATIONS",
        lambda x: augment.ada_pipeline(["x_flip", "brightness", "cutout"])(KEY, x, 0.7),  # its stages are cases too
        normals((BATCH, 8, 8, 1)),
        "elementwise",
        batched=1,
        random=True,
    ),
    "per_clip": Case(
        "augment.per_clip",
        lambda x: augment.per_clip(augment.diff_augment(["color", "translation"]))(KEY, x, jnp.float32(0.7)),
        normals((BATCH, 2, 4, 4, 1)),
        "elementwise",
        batched=1,
        random=True,
    ),
    "ada_controller": Case(
        "augment.AdaState augment.init_ada augment.observe augment.control",
        lambda logits: augment.control(augment.observe(augment.init_ada(0.5), logits), 100.0).p,
        normals((BATCH,)),
        "scalar",
        batched=1,
        coupled=True,
        signs=(0,),
    ),
    "orthogonal": Case(
        "regularizers.orthogonal",
        lambda a, b: regularizers.orthogonal([a, b]),
        normals((4, 3), (3, 3, 2, 5)),
        "scalar",
        batched=0,
    ),
}

"""A list of realistic programming errors, some for every package; `benchmarks.faults` injects them one at a time.

Each fault changes behaviour, usually by a few characters. None only affects speed or wording, and none leaves the
library correct.
"""

import ast
import pathlib
from typing import NamedTuple


class Fault(NamedTuple):
    """One fault: a replacement of text in one file.

    Attributes:
      name: description of the faulty behaviour.
      file: path from the repository's root.
      right: correct text, which occurs exactly once in the file.
      wrong: faulty text that replaces it.
      tests: arguments of pytest, separated by spaces: the tests near the fault, which should catch it.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: str

    def change(self, root: pathlib.Path) -> None:
        """Injects the fault into a copy of the repository."""
        path = root / self.file
        path.write_text(path.read_text().replace(self.right, self.wrong))

    def problem(self, root: pathlib.Path) -> str:
        """Explains why the fault cannot be injected or its tests cannot be run in this copy; empty if both can."""
        path = root / self.file
        if not path.is_file():
            return f"{self.file} does not exist"
        text = path.read_text()
        if text.count(self.right) != 1:
            return f"{self.file} has {self.right!r} {text.count(self.right)} times, expected once"
        try:
            changed = ast.dump(ast.parse(text.replace(self.right, self.wrong)))
        except SyntaxError as error:
            return f"{self.file} would not be valid Python: {error}"
        if changed == ast.dump(ast.parse(text)):
            return f"{self.file} would not be changed"
        for argument in self.tests.split():
            name, _, function = argument.partition("::")
            if not (root / name).exists():
                return f"{name} does not exist"
            if function and f"def {function.partition('[')[0]}(" not in (root / name).read_text():
                return f"{name} has no {function}"
        return ""


_AUXILIARY, _LOSSES = "tests/losses/test_auxiliary.py", "tests/losses/test_adversarial.py"
_FUNCTIONS, _GAMES = "tests/conformance/test_functions.py", "tests/conformance/test_games.py"
_GRADIENT, _REGULARIZERS = "tests/regularizers/test_gradient.py", "tests/regularizers/test_others.py"
_AUGMENT, _METRICS = "tests/augment/test_augment.py", "tests/metrics/test_metrics.py"
_CORE, _RULES = "tests/core/test_core.py", "tests/core/test_rules.py"
_ADVERSARIAL, _CYCLEGAN, _STYLEGAN2 = (f"tests/gans/test_{x}.py" for x in ("adversarial", "cyclegan", "stylegan2"))
_NETS, _LAYERS, _OPS = "tests/nets/test_nets.py", "tests/nets/test_stylegan2.py", "tests/ops/test_conv.py"
_DATA, _WEIGHTS, _SELECTION = (
    "tests/data/test_data.py",
    "tests/feature_networks/test_weights.py",
    "tests/eval/test_selection.py",
)
_CHECKPOINT = "tests/runtime/test_checkpoint.py"
_RUNTIME, _EVALUATION = "tests/runtime/test_runtime.py", "tests/runtime/test_evaluation.py"
_POPULATION, _SEARCH = "tests/sweep/test_population.py", "tests/sweep/test_search.py"
_COMMANDS, _FAULTS = "tests/experiments/test_commands.py", "tests/experiments/test_faults.py"
_STUDY, _SWEEP, _EVALUATE = (f"tests/experiments/test_{x}.py" for x in ("study", "sweep", "evaluate"))

FAULTS: tuple[Fault, ...] = (
    # losses
    Fault("the generator's hinge loss has the wrong sign", "gan_jax/losses/adversarial.py",
          "_hinge_generator(real_logits: Logits, fake_logits: Logits) -> Logits:\n    del real_logits\n    return -",
          "_hinge_generator(real_logits: Logits, fake_logits: Logits) -> Logits:\n    del real_logits\n    return ",
          f"{_LOSSES}::test_values"),
    Fault("relativistic averages run over the places of a patch map too", "gan_jax/losses/relativistic.py",
          "jnp.mean(x, axis=0, keepdims=True)", "jnp.mean(x, keepdims=True)",
          f"{_FUNCTIONS}::test_logits_of_any_shape"),
    Fault("feature matching lets a gradient into the reals", "gan_jax/losses/reconstruction.py",
          "l1(fake, jax.lax.stop_gradient(real))", "l1(fake, real)",
          f"{_FUNCTIONS}::test_the_gradient_has_the_right_sign"),
    Fault("matching of mean features takes a mean in place of the sum", "gan_jax/losses/reconstruction.py",
          "jnp.sum((jax.lax.stop_gradient(real) - fake) ** 2)", "jnp.mean((jax.lax.stop_gradient(real) - fake) ** 2)",
          f"{_AUXILIARY}::test_values"),
    Fault("the classes of fakes are off by one", "gan_jax/losses/auxiliary.py",
          "_checked(label) + classes // 2", "_checked(label) + classes // 2 - 1", f"{_AUXILIARY}::test_values"),
    Fault("the Charbonnier loss of bfloat16 is float32", "gan_jax/losses/reconstruction.py",
          "jnp.sqrt(difference**2 + epsilon**2).astype(prediction.dtype)", "jnp.sqrt(difference**2 + epsilon**2)",
          f"{_FUNCTIONS}::test_shape_and_dtype"),
    # regularizers
    Fault("the interpolation has one alpha for the batch", "gan_jax/regularizers/gradient.py",
          "(x.shape[0],) + (1,) * (x.ndim - 1)", "(1,) * x.ndim",
          f"{_GRADIENT}::test_the_interpolation_lies_between_with_one_alpha_per_example"),
    Fault("the one-sided penalty has two sides", "gan_jax/regularizers/gradient.py",
          "(jax.nn.relu(excess) if one_sided else excess) ** 2", "excess**2", f"{_GRADIENT}::test_linear_critic"),
    Fault("R1 takes the mean over pixels in place of the sum", "gan_jax/regularizers/gradient.py",
          "jnp.sum(gradient**2, axis=tuple(range(1, gradient.ndim)))",
          "jnp.mean(gradient**2, axis=tuple(range(1, gradient.ndim)))", f"{_GRADIENT}::test_linear_critic"),
    Fault("penalties of bfloat16 are summed in bfloat16", "gan_jax/regularizers/gradient.py",
          "gradient = _at_least_float32(jax.grad(total)(x))", "gradient = jax.grad(total)(x)",
          f"{_GRADIENT}::test_bfloat16_input_gives_float32"),
    Fault("a gradient flows through LeCam's anchors", "gan_jax/regularizers/lecam.py",
          "(jnp.mean(jax.lax.stop_gradient(x)) for x in (real, fake))", "(jnp.mean(x) for x in (real, fake))",
          f"{_REGULARIZERS}::test_lecam_of_patches_is_the_mean_over_an_example_and_its_anchors_are_constants"),
    Fault("a gradient flows through the path lengths' moving average", "gan_jax/regularizers/path_length.py",
          "jnp.mean(jax.lax.stop_gradient(length))", "jnp.mean(length)", _REGULARIZERS),
    # augment
    Fault("colours are drawn once for all examples", "gan_jax/augment/diffaug.py",
          "jax.random.uniform(k, (n, 1, 1, 1))", "jax.random.uniform(k, (1, 1, 1, 1))",
          f"{_AUGMENT}::test_examples_differ_and_keys_matter"),
    Fault("translation uses one key for height and width", "gan_jax/augment/diffaug.py",
          "jax.random.randint(keys[axis - 1], (n,)", "jax.random.randint(keys[0], (n,)", _AUGMENT),
    Fault("cutout uses one key for row and column", "gan_jax/augment/diffaug.py",
          "jax.random.uniform(axis_key, (n, 1)", "jax.random.uniform(keys[0], (n, 1)", _AUGMENT),
    Fault("the filter of resampling lacks its gain of two", "gan_jax/augment/geometry.py",
          "+= 2 * SYM6[k] / SYM6.sum()", "+= SYM6[k] / SYM6.sum()",
          f"{_AUGMENT}::test_resampling_by_nothing_and_by_whole_pixels_is_exact_inside"),
    Fault("both rotations are drawn with probability p", "gan_jax/augment/geometry.py",
          "chance = 1.0 - jnp.sqrt(1.0 - chance) if name == \"rotation\" else chance", "chance = chance",
          f"{_AUGMENT}::test_each_operation_is_drawn_with_probability_p"),
    Fault("adaptive augmentation moves away from its target", "gan_jax/augment/ada.py",
          "jnp.sign(mean_sign - target)", "jnp.sign(target - mean_sign)",
          f"{_AUGMENT}::test_the_controller_finds_its_target"),
    # metrics
    Fault("FID's covariance is divided by n", "gan_jax/metrics/frechet.py",
          "self.scatter / (self.size - 1)", "self.scatter / self.size",
          f"{_METRICS}::test_moments_do_not_depend_on_the_batch_size"),
    Fault("merged moments lack the scatter between the parts", "gan_jax/metrics/frechet.py",
          " + np.outer(difference, difference) * (a.size * b.size / n)", "",
          f"{_METRICS}::test_moments_do_not_depend_on_the_batch_size"),
    Fault("KID counts the diagonal", "gan_jax/metrics/kernel.py",
          "(within.sum() - np.trace(within))", "within.sum()", f"{_METRICS}::test_kernel_distance_by_hand"),
    Fault("a point is among its own k nearest neighbours", "gan_jax/metrics/neighbours.py",
          "exact.nearest(points, points, k, others=True)", "exact.nearest(points, points, k)",
          f"{_METRICS}::test_precision_recall_density_coverage_by_brute_force"),
    Fault("a point on the surface of a ball is outside", "gan_jax/metrics/exact.py",
          "rows[row], column) <= radii[column]", "rows[row], column) < radii[column]",
          f"{_METRICS} tests/golden/test_metrics.py"),
    Fault("float32's squared distances count as exact", "gan_jax/metrics/exact.py",
          "return 2.0 * (x.shape[1] + 8) * float(jnp.finfo(x.dtype).eps)", "return 0.0",
          f"{_METRICS}::test_metrics_are_those_of_float64"),
    Fault("coverage leaves out what lies on the surface of a ball", "gan_jax/metrics/neighbours.py",
          "[0][:, 0] <= radii", "[0][:, 0] < radii", _METRICS),
    Fault("the padding of the last block counts as a point", "gan_jax/metrics/blocks.py",
          "first + jnp.arange(size) < count", "first + jnp.arange(size) <= count",
          f"{_METRICS}::test_neighbours_by_brute_force_in_blocks_of_any_size"),
    # core
    Fault("the average's half-life is in iterations, not images", "gan_jax/core/hooks.py",
          "0.5 ** (batch_size / jnp.maximum(halflife, 1e-8))", "0.5 ** (1.0 / jnp.maximum(halflife, 1e-8))",
          f"{_CORE}::test_ema_halves_the_distance_in_its_halflife_of_images"),
    Fault("lazy Adam's second beta has the inverse exponent", "gan_jax/core/optimizers.py",
          "b2=b2**c", "b2=b2 ** (1 / c)", f"{_CORE}::test_adam_is_optax_adam_and_lazy_adam_is_corrected"),
    Fault("all updates of a phase in an iteration have one key", "gan_jax/core/phase.py",
          "direction(phase, state, batch, jax.random.fold_in(key, index))", "direction(phase, state, batch, key)",
          f"{_CORE} {_ADVERSARIAL}"),
    Fault("all phases of an iteration have one key", "gan_jax/core/rules.py",
          "run_phase(phase, state, batches, jax.random.fold_in(key, index))", "run_phase(phase, state, batches, key)",
          f"{_CORE} {_RULES}"),
    Fault("all iterations have one key", "gan_jax/core/step.py",
          "iteration_key = jax.random.fold_in(state.key, state.step)", "iteration_key = state.key",
          f"{_CORE} {_RULES}"),
    Fault("the batch is gathered on every device", "gan_jax/core/sharding.py",
          "spec = batch_spec(names, axis)", "spec = PartitionSpec()",
          f"{_GAMES}::test_the_only_collectives_are_all_reduces_of_gradients_and_means"),
    Fault("the truncated normal prior is not truncated", "gan_jax/core/priors.py",
          "jax.random.truncated_normal(key, -truncation, truncation, (n, dim))",
          "truncation * jax.random.normal(key, (n, dim))", f"{_CORE}::test_priors"),
    Fault("extragradient takes both steps on one batch", "gan_jax/core/rules.py",
          'mix("opt_state"), passes[1], key', 'mix("opt_state"), passes[0], key', _RULES),
    # gans
    Fault("the generator has the discriminator's optimiser", "gan_jax/gans/standard.py",
          "core.create_player(params, model_state, optimizers[GENERATOR])",
          "core.create_player(params, model_state, optimizers[DISCRIMINATOR])",
          f"{_ADVERSARIAL}::test_adam_is_corrected_for_a_lazy_penalty_of_the_critic_alone"),
    Fault("CycleGAN's discriminators have the generators' optimiser", "gan_jax/gans/cyclegan.py",
          "DISCRIMINATOR: discriminator_optimizer}", "DISCRIMINATOR: generator_optimizer}", _CYCLEGAN),
    Fault("CycleGAN's pool is never replaced", "gan_jax/gans/cyclegan.py",
          "write = chosen & (filling | swap)", "write = chosen & filling",
          f"{_CYCLEGAN}::test_the_pool_fills_and_then_gives_back_earlier_images_half_of_the_time"),
    Fault("CycleGAN's identity loss has no weight", "gan_jax/gans/cyclegan.py",
          'Term("identity", GENERATOR, weight, value)', 'Term("identity", GENERATOR, None, value)',
          f"{_CYCLEGAN}::test_losses"),
    Fault("the generator's phase does not keep its batch statistics", "gan_jax/gans/standard.py",
          "None if lazy else getattr(view, writes)[1]",
          "None if lazy or player == GENERATOR else getattr(view, writes)[1]",
          f"{_STYLEGAN2}::test_the_average_of_w_moves_with_the_generator_and_truncation_towards_it"),
    Fault("the critic's batch statistics and spectral vectors are not kept", "gan_jax/gans/standard.py",
          "None if lazy else getattr(view, writes)[1]",
          "None if lazy or player == DISCRIMINATOR else getattr(view, writes)[1]",
          f"{_ADVERSARIAL} tests/gans/test_sngan.py"),
    Fault("R2 is taken at the reals", "gan_jax/gans/terms.py",
          "logits(view.fake_critic(x)), view.fake)", "logits(view.fake_critic(x)), view.real)",
          _ADVERSARIAL),
    Fault("samples are never of the last class", "gan_jax/gans/standard.py",
          "jax.random.randint(key, (n,), 0, num_classes)", "jax.random.randint(key, (n,), 0, num_classes - 1)",
          f"{_GAMES}::test_samples {_ADVERSARIAL}"),
    Fault("WGAN-GP's Adam has a first beta of a half", "gan_jax/gans/wgan_gp.py",
          "with_adam(options, learning_rate, 0.0, 0.9)", "with_adam(options, learning_rate, 0.5, 0.9)", "tests/gans"),
    # nets
    Fault("demodulation has no epsilon", "gan_jax/nets/stylegan2.py",
          "jax.lax.rsqrt(style**2 @ squared + 1e-8)", "jax.lax.rsqrt(style**2 @ squared)",
          f"{_LAYERS}::test_scaling_images_is_scaling_each_examples_kernel"),
    Fault("the standard deviation of a minibatch is over the wrong axis", "gan_jax/nets/stylegan2.py",
          "jnp.var(wide, axis=1)", "jnp.var(wide, axis=0)", f"{_LAYERS}::test_minibatch_stddev_by_hand"),
    Fault("kernels with a learning-rate multiplier go without it", "gan_jax/nets/stylegan2.py",
          "(kernel * (self.lr_multiplier / math.sqrt(x.shape[-1])))", "(kernel / math.sqrt(x.shape[-1]))", _LAYERS),
    Fault("spectral norm's vectors move in evaluation", "gan_jax/nets/layers.py",
          "return wrapped(x, update_stats=train)", "return wrapped(x, update_stats=True)",
          f"{_NETS}::test_spectral_norm_divides_every_kernel_by_its_largest_singular_value"),
    Fault("the slope of the leaky ReLU is 0.01", "gan_jax/nets/layers.py",
          "jax.nn.leaky_relu(x, 0.2)", "jax.nn.leaky_relu(x, 0.01)", f"{_NETS} {_LAYERS}"),
    Fault("dropout has one key for ever", "gan_jax/nets/adapter.py",
          "jax.random.split(key, len(_STREAMS))", "jax.random.split(jax.random.key(0), len(_STREAMS))",
          f"{_NETS}::test_the_seam"),
    Fault("the parts of a batch share their dropout", "gan_jax/nets/remat.py",
          "jax.random.fold_in(key, index)", "key",
          "tests/runtime/test_fsdp_and_memory.py::test_parts_of_a_batch_have_dropout_of_their_own"),
    Fault("upsampling lacks its gain", "gan_jax/ops/convolution.py",
          "[tap * factor for tap in _normalized(taps)]", "_normalized(taps)",
          f"{_OPS}::test_resampling_keeps_constants_inside_and_sizes"),
    Fault("activations of StyleGAN2 lose the power of their input", "gan_jax/nets/stylegan2.py",
          "layers.leaky_relu(x) * math.sqrt(2)", "layers.leaky_relu(x)", _LAYERS),
    Fault("the branches of a residual critic add up to twice the power", "gan_jax/nets/stylegan2.py",
          "(y + skip(x)) * math.sqrt(0.5)", "(y + skip(x))", _LAYERS),
    Fault("running statistics of batch norm move by a hundredth", "gan_jax/nets/layers.py",
          "momentum=0.9", "momentum=0.99", _NETS),
    # data
    Fault("every epoch has the order of the first", "gan_jax/data/order.py",
          "[seed % 2**64, epoch]", "[seed % 2**64, 0]", f"{_DATA}::test_every_example_once_an_epoch_in_a_new_order"),
    Fault("a run that resumes sees its last batch again", "gan_jax/data/sources.py",
          "local_indices, start * draws, self.change)", "local_indices, max(0, start - 1) * draws, self.change)",
          f"{_DATA}::test_a_batch_is_a_function_of_seed_and_step_on_any_number_of_hosts"),
    Fault("labels of one byte are scaled like pixels", "gan_jax/data/sources.py",
          'if values.dtype == jnp.uint8 and name != "label":', "if values.dtype == jnp.uint8:",
          f"{_DATA}::test_labels_are_integers_of_whatever_width"),
    Fault("the fingerprint of data does not depend on their content", "gan_jax/data/sources.py",
          "digest.update(np.ascontiguousarray(values).data)", "np.ascontiguousarray(values)", "tests/data"),
    Fault("an image of a folder has the label of the one before", "gan_jax/data/folder.py",
          "self.labels[index]", "self.labels[index - 1]", f"{_DATA}::test_image_folder"),
    Fault("photographs that a camera turned lie on their side", "gan_jax/data/decode.py",
          "ImageOps.exif_transpose(picture)", "picture.copy()", _DATA),
    Fault("grey images of 16 bits are taken for twice as bright", "gan_jax/data/decode.py",
          "* 256.0", "* 512.0", _DATA),
    Fault("colours that transparency hides are trained on", "gan_jax/data/decode.py",
          "if not picture.has_transparency_data:", "if picture.mode:",
          "tests/data/test_decode.py::test_hidden_colours_are_not_seen"),
    Fault("Pillow may start a program to decode an image", "gan_jax/data/decode.py",
          "formats=formats", "formats=None", "tests/data/test_decode.py::test_postscript_is_never_interpreted"),
    Fault("prepared versions of a data set are ordered as words", "gan_jax/data/tfds.py",
          ", key=_version)", ")", _DATA),
    Fault("the channels of stacked digits have one order", "gan_jax/data/stacked.py",
          "seed + (channel << 56)", "seed", "tests/data/test_stacked.py"),
    # eval
    Fault("the hash of weights is not verified", "gan_jax/feature_networks/weights.py",
          "self.sha256 is not None and digest != self.sha256", "self.sha256 is not None and not digest",
          f"{_WEIGHTS}::test_a_changed_byte_is_refused_before_anything_is_parsed"),
    Fault("unknown opcodes of a pickle are passed over", "gan_jax/feature_networks/pickles.py",
          """raise RefusedError(f"it has opcode {opcode!r}, which PyTorch doesn't write")""", "continue", _WEIGHTS),
    Fault("a tensor may reach one element beyond its storage", "gan_jax/feature_networks/pickles.py",
          "last >= storage.size", "last > storage.size", _WEIGHTS),
    Fault("features of the padding are among those of the images", "gan_jax/eval/extract.py",
          "_joined(found).first(count * rows[name])", "_joined(found)",
          "tests/eval/test_extract.py::test_exactly_as_many_as_asked_for"),
    Fault("Metropolis and Hastings prefer the worse sample", "gan_jax/eval/selection.py",
          "< logits[:, index] - current", "< current - logits[:, index]",
          f"{_SELECTION}::test_metropolis_hastings_ends_at_the_reals"),
    Fault("calibration gives the larger of two sets more weight", "gan_jax/eval/selection.py",
          "np.where(y == 1.0, 0.5 / len(real_logits), 0.5 / len(fake_logits))", "np.full(len(y), 1.0 / len(y))",
          f"{_SELECTION}::test_calibration_finds_the_ratio_behind_any_slope_and_shift"),
    Fault("the record of a kept classifier is not compared", "gan_jax/eval/classifier.py",
          "if made.record != record or arrays:", "if arrays:",
          "tests/eval/test_classifier.py::test_a_file_brings_it_back_and_a_damaged_one_is_refused"),
    # runtime
    Fault("a line of the log is not on disk when it is told", "gan_jax/host.py",
          ".encode())\n        file.flush()\n        os.fsync(file.fileno())", ".encode())\n        file.flush()",
          f"{_RUNTIME} tests/runtime/test_train.py"),
    Fault("the manifest of a checkpoint looks at sizes alone", "gan_jax/runtime/manifest.py",
          "if was != now:", "if was[0] != now[0]:", f"{_RUNTIME}::test_a_damaged_file_never_restores_something_else"),
    Fault("the worst checkpoint is kept as the best", "gan_jax/runtime/checkpoint.py",
          '-1.0 if best_mode == "min" else 1.0', '-1.0 if best_mode == "max" else 1.0',
          f"{_FAULTS}::test_the_best_checkpoint_is_kept {_CHECKPOINT}"),
    Fault("a checkpoint of another run is taken for one's own", "gan_jax/runtime/manifest.py",
          'manifest.get("run") == identity.run', "True",
          f"{_CHECKPOINT}::test_a_checkpoint_under_another_steps_name_or_from_another_run_is_put_aside"),
    Fault("a checkpoint that a signal saved can be the best", "gan_jax/runtime/loop.py",
          "measured if scheduled else None", "measured",
          "tests/runtime/test_train.py::test_the_best_checkpoint_is_that_of_the_run_that_was_not_stopped"),
    Fault("a whole number with a point is taken for one without", "gan_jax/host.py",
          "float: (float, int)}", "float: (float, int), int: (int, float)}", "tests/test_host.py"),
    Fault("a checkpoint of a diverged generator is saved", "gan_jax/runtime/loop.py",
          "not all_finite(carried):", 'not all_finite(carried["state"].players["discriminator"]):',
          f"{_FAULTS}::test_nan_stops_the_run {_EVALUATION}::test_a_divergence_is_one_with_metrics_too "
          "tests/runtime/test_train.py"),
    Fault("the log lacks the last line", "gan_jax/runtime/loop.py",
          "if last or step % settings.report_every == 0:", "if step % settings.report_every == 0:",
          "tests/runtime/test_train.py"),
    Fault("a signal is swallowed", "gan_jax/distributed/signals.py",
          "request.signal = number", "pass", f"{_FAULTS}::test_a_signal_while_starting"),
    Fault("a signal to one process is not heard by the others", "gan_jax/distributed/hosts.py",
          "jax.jit(jnp.any, ", "jax.jit(jnp.all, ",
          "tests/multihost/test_lost.py::test_a_signal_to_one_stops_all_at_the_same_step"),
    Fault("a rollback goes on with the same noise", "gan_jax/runtime/rollback.py",
          "lambda key: jax.random.fold_in(key, _KEY + number)", "lambda key: key",
          f"{_EVALUATION}::test_a_divergence_is_one_with_metrics_too"),
    Fault("the cache of classifiers goes by the data's name", "gan_jax/runtime/reference.py",
          '"data": self.source.fingerprint()}', '"data": self.source.name}', _EVALUATION),
    Fault("every chunk of samples is the first again", "gan_jax/runtime/sampling.py",
          "key = jax.random.fold_in(jax.random.key(seed), index)", "key = jax.random.key(seed)",
          f"{_RUNTIME} {_EVALUATION}"),
    # sweep
    Fault("the members of a population share their noise", "gan_jax/sweep/members.py",
          "jax.random.key(member.seed) for member in held", "jax.random.key(held[0].seed) for member in held",
          f"{_POPULATION}::test_a_member_is_the_run_that_it_would_be_alone"),
    Fault("what has diverged is not kept as it was at last", "gan_jax/sweep/members.py",
          "new if axis is None else _select(alive, new, old)", "new",
          f"{_POPULATION}::test_a_diverging_member_is_frozen_and_the_others_do_not_notice "
          f"{_POPULATION}::test_every_member_can_be_had_as_a_run_of_its_own"),
    Fault("copies take the noise of their parents", "gan_jax/sweep/members.py",
          'state if keys else state.replace(key=carried["state"].key)', "state",
          f"{_POPULATION}::test_copies_take_everything_but_their_own_noise"),
    Fault("halving prunes the best", "gan_jax/sweep/search.py",
          "pruned=sorted(ranking[max(1, len(ranking) // self.eta) :])",
          "pruned=sorted(ranking[::-1][max(1, len(ranking) // self.eta) :])", f"{_SEARCH}::test_rungs_of_halving"),
    Fault("a population's search takes the worst metric for the best", "gan_jax/sweep/population.py",
          'self.experiment.best_metric, -1.0 if self.experiment.best() == "min"',
          'self.experiment.best_metric, -1.0 if self.experiment.best() == "max"',
          "tests/multihost/test_sweep.py tests/sweep/test_population.py"),
    Fault("a trial can be told twice", "gan_jax/sweep/study.py",
          "if not self.holds(number):", "if number < 0:", f"{_STUDY}::test_trials_are_taken_once_and_end_once"),
    Fault("two workers can hold one trial", "gan_jax/sweep/study.py",
          "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB",
          f"{_STUDY}::test_trials_are_taken_once_and_end_once"),
    # experiments
    Fault("a run may be continued with another learning rate", "gan_jax/runs/settings.py",
          '"remat")', '"remat", "learning_rate")', f"{_COMMANDS}::test_a_workdir_of_another_config"),
    Fault("the library's defaults go before a config's own", "gan_jax/runs/settings.py",
          '{"seed": 0} | defaults | values', '{"seed": 0} | values | defaults',
          f"{_COMMANDS}::test_a_diverged_run_keeps_and_names_its_last_good_checkpoint"),
    Fault("a diverged run exits as if it were done", "gan_jax/cli/train.py",
          "DIVERGED: commands.DIVERGED}", "DIVERGED: commands.DONE}",
          f"{_COMMANDS}::test_a_diverged_run_keeps_and_names_its_last_good_checkpoint"),
    Fault("two runs can have one workdir", "gan_jax/runtime/workdir.py",
          "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB", f"{_FAULTS}::test_a_workdir_in_use"),
    Fault("trials don't get what the command overrides", "gan_jax/cli/sweep.py",
          "return {key: flags.FLAGS.config[key] for key in given}", "return {}",
          f"{_SWEEP}::test_trials_one_by_one_are_the_printed_commands"),
    Fault("an evaluation with another truncation is taken for done", "gan_jax/cli/evaluate.py",
          '"truncation": _TRUNCATION.value,', "", _EVALUATE),
    Fault("SNGAN's critic slows down as if it had one step", "experiments/configs/sngan_cifar10.py",
          "discriminator_optimizer=optimizer(config, config.critic_steps)",
          "discriminator_optimizer=optimizer(config, 1)", "tests/gans/test_sngan.py"),
)  # fmt: skip

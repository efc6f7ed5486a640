"""The conformance suite that every game passes."""

import functools
import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import monitoring

from gan_jax import core, data, gans, runtime
from gan_jax.core.phase import run_phase
from gan_jax.runs import programs
from gan_jax.types import Game, InvalidInputError
from tests.conformance.games import BATCH, GAMES, SLOW

ALL = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xdist_group(name), *[pytest.mark.slow] * (name in SLOW)])
        for name in sorted(GAMES)
    ],
    scope="module",
)  # one process per game, and one game after the other: each compiles once, and its programs can be dropped afterwards


SEED = 3


class Subject:
    """A game of the list on one device, with everything that the tests share, compiled once.

    The optimiser is SGD, because Adam magnifies round-off. At the learning rate of 1e-3 every game is stable. At 1e-2
    the ten critic steps of WGAN-GP, with gradients of norm 20, magnify round-off too, by an amount that depends on the
    processor's vector width.
    """

    def __init__(self, name: str) -> None:
        build, self.source = GAMES[name]
        sgd = optax.inject_hyperparams(optax.sgd)(learning_rate=1e-3)
        self.game = build(generator_optimizer=sgd, discriminator_optimizer=sgd)
        feed = self.source.feed(SEED, core.batches_per_iteration(self.game), BATCH, range(BATCH))
        sent = next(feed.stream(0, 2))
        each = [jax.tree.map(lambda x, step=step: x[step], sent) for step in range(2)]
        self.batches, self.next = (feed.fetch(feed.data, x, step) for step, x in enumerate(each))
        self.first = jax.tree.map(lambda x: x[0], self.batches)
        self.init = jax.jit(self.game.init)
        self.state = self.init(jax.random.key(SEED), self.first)
        self.step = jax.jit(core.make_step(self.game))
        self.inputs = {} if self.game.prior is not None else {"inputs": jnp.zeros((5, 8, 8, 1))}


subject = functools.lru_cache(1)(Subject)


@functools.lru_cache(2)
def compiled(name: str, batch_size: int = BATCH):
    """Returns a game, its start and its program on eight devices."""
    this = subject(name)
    run = runtime.Experiment(
        game=this.game,
        source=lambda: this.source,
        preview=runtime.image_grid,
        seed=SEED,
        batch_size=batch_size,
        steps=100,
        report_every=2,
        sample_every=0,
        checkpoint_every=2,
    )
    mesh = runtime.make_mesh(jax.devices()[:8])
    with jax.set_mesh(mesh):
        start = runtime.build_start(run, this.source.spec, mesh)
        return run.game, start, runtime.build_program(run, this.source, mesh, start)


def test_every_factory_is_in_the_list():
    factories = {
        name
        for name in gans.__all__
        if inspect.isfunction(getattr(gans, name)) and inspect.signature(getattr(gans, name)).return_annotation is Game
    }
    missing = factories - set(GAMES) - {"standard_game"}  # all of them are built with it
    assert factories and not missing, f"add {missing} to tests/conformance/games.py"


def equal(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), a, b)))


@ALL
def test_every_array_of_the_state_is_finite_and_the_step_counts(name):
    this = subject(name)
    state = this.state
    for _ in range(3):
        state, accumulator = this.step(state, this.batches)
    assert int(state.step) == 3 and bool(runtime.all_finite(state))
    assert all(np.isfinite(value) for value in core.accumulator_means(accumulator).values())
    for phase in this.game.phases:
        assert f"{phase.name}/loss" in accumulator and f"{phase.name}/gradient_norm" in accumulator


@ALL
def test_each_phase_changes_its_own_player_alone(name):
    """The traced program shows that a phase returns the arrays of other players exactly as it received them."""
    this = subject(name)
    accumulator = this.step(this.state, this.batches)[1]
    for phase in this.game.phases:
        assert float(accumulator[f"{phase.name}/gradient_norm"][0]) > 0, f"{phase.name} does not move {phase.player}"
        run = functools.partial(run_phase, phase._replace(every=1, repeat=1))
        drawn = jax.tree.map(lambda x: x[:1], this.batches)
        traced = jax.make_jaxpr(run)(this.state, drawn, jax.random.key(1)).jaxpr
        leaves, structure = jax.tree.flatten(this.state)
        before, after = (
            jax.tree.unflatten(structure, variables[: len(leaves)]).players
            for variables in (traced.invars, traced.outvars)
        )
        for player in before:
            kept = [a is b for a, b in zip(*(jax.tree.leaves(x[player]) for x in (before, after)), strict=True)]
            assert not all(kept) if player == phase.player else all(kept), f"{phase.name} and {player}"


@ALL
def test_same_seed_same_run_other_seed_another(name):
    this = subject(name)

    def run(seed):
        return runtime.state_sha256(this.step(this.init(jax.random.key(seed), this.first), this.batches)[0])

    assert run(0) == run(0) != run(1)


@ALL
def test_one_compile_whatever_the_hyperparameters(name):
    this = subject(name)
    events = []
    monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
    try:
        state, _ = jax.block_until_ready(this.step(this.state, this.batches))
        hparams = core.get_hparams(state)
        assert "generator/learning_rate" in hparams
        state = core.set_hparams(state, {key: value * 0.5 for key, value in hparams.items()})
        events.clear()
        for _ in range(3):
            state, _ = this.step(state, this.batches)
        assert not [event for event in events if "compile" in event], events
    finally:
        monitoring.clear_event_listeners()


@ALL
def test_hyperparameters_matter(name):
    this = subject(name)
    frozen = core.set_hparams(this.state, {"generator/learning_rate": 0.0})
    after, _ = this.step(frozen, this.batches)
    assert equal(frozen.players["generator"].params, after.players["generator"].params)
    for player in set(this.state.players) - {"generator"}:
        assert not equal(frozen.players[player].params, after.players[player].params)


@ALL
def test_samples(name):
    this = subject(name)
    game = this.game
    sample = jax.jit(functools.partial(game.sample, n=5))
    samples = sample(this.state, jax.random.key(0), **this.inputs)
    assert (
        samples.shape == (5, *this.source.spec.get("real", this.first["a" if "a" in this.first else "real"][0]).shape)
        and samples.dtype == jnp.float32
    )
    assert bool(jnp.all(jnp.abs(samples) <= 1))
    np.testing.assert_array_equal(samples, sample(this.state, jax.random.key(0), **this.inputs))
    if game.prior is None:
        with pytest.raises(InvalidInputError, match="inputs"):
            game.sample(this.state, jax.random.key(0), 5)
    if game.num_classes is None:
        with pytest.raises(InvalidInputError, match="label"):
            game.sample(this.state, jax.random.key(0), 5, jnp.zeros(5, jnp.int32), **this.inputs)
    else:
        state, _ = this.step(this.state, this.batches)  # conditional batch norm starts equal for all labels
        by_label = [sample(state, jax.random.key(0), label=np.full(5, label)) for label in (0, 1)]
        assert not np.allclose(*by_label)


@ALL
def test_wrong_labels_are_refused(name):
    this = subject(name)
    wrong = {key: value for key, value in this.first.items() if key != "label"}
    if this.game.num_classes is None:
        wrong["label"] = jnp.zeros(BATCH, jnp.int32)
    with pytest.raises(InvalidInputError):
        this.game.init(jax.random.key(0), wrong)


@ALL
def test_one_and_eight_devices_agree(name):
    """One device runs the step with batches fetched outside it; eight devices run the program of an experiment."""
    this = subject(name)
    _, start, program = compiled(name)
    alone, sums = this.step(this.state, this.batches)
    alone, more = this.step(alone, this.next)
    carried, sent = start.init(), program.stream(0)
    state, accumulator = carried["state"], carried["window"]
    for _ in range(2 // program.length):
        state, accumulator = program.run(state, accumulator, program.data, next(sent))
    assert len(state.step.sharding.device_set) == 8 and int(state.step) == int(alone.step) == 2
    means, expected = (core.accumulator_means(x) for x in (accumulator, jax.tree.map(jnp.add, sums, more)))
    assert means.keys() == expected.keys()
    for metric, value in expected.items():
        tolerance = 1e-5 if metric.endswith("/loss") else 1e-4  # the norm of a penalty's gradient is less accurate
        np.testing.assert_allclose(means[metric], value, rtol=tolerance, atol=tolerance, err_msg=metric)
    players = ({player: jax.device_get(p.params) for player, p in x.players.items()} for x in (state, alone))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), *players)


def collectives(text: str) -> list[tuple[str, int]]:
    """Lists the collectives of a compiled program: kind, and number of values carried."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
    found = re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)
    return [
        (kind, sum(math.prod(int(n) for n in dims.split(",") if n) for dims in re.findall(r"\w+\[([\d,]*)\]", shape)))
        for shape, kind in found
    ]


@ALL
def test_the_only_collectives_are_all_reduces_of_gradients_and_means(name):
    game, start, program = compiled(name)
    found = collectives(program.run.as_text())
    assert {kind for kind, _ in found} == {"all-reduce"}, found
    players = start.abstract["state"].players
    sizes = {player: sum(x.size for x in jax.tree.leaves(state.params)) for player, state in players.items()}
    gradients = sum(sizes[phase.player] for phase in game.phases)
    assert sum(size for _, size in found) >= gradients, "a gradient is not summed over the devices"


GROWING = ("adversarial", "cyclegan", "sngan")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in GROWING])
def test_no_collective_grows_with_the_batch(name):
    """Tests the games that carry something along the batch: labels, batch norm, a pool."""
    _, _, program = compiled(name)
    _, _, twice = compiled(name, 2 * BATCH)
    assert sorted(collectives(twice.run.as_text())) == sorted(collectives(program.run.as_text()))


@ALL
def test_a_checkpoint_brings_everything_back(name, tmp_path):
    _, start, program = compiled(name)
    carried, sent = start.init(), program.stream(0)
    state, accumulator = program.run(carried["state"], carried["window"], program.data, next(sent))
    checkpointer = runtime.Checkpointer(tmp_path / "checkpoints", keep_last=1)
    checkpointer.save(program.length, carried | {"state": state, "window": accumulator})
    straight, straight_window = program.run(state, accumulator, program.data, next(sent))
    checkpointer.wait()
    step, back = checkpointer.restore_latest(start.abstract)
    assert step == program.length
    resumed = program.run(back["state"], back["window"], program.data, next(program.stream(step)))
    checkpointer.close()
    assert runtime.state_sha256(resumed[0]) == runtime.state_sha256(straight)
    assert runtime.state_sha256(resumed[1]) == runtime.state_sha256(straight_window)


def example(shape):
    """An input of an exported function, in a batch of three: numbers from 0 to 1, classes, or the data of a key."""
    sizes = [size if isinstance(size, int) else 3 for size in shape.shape]
    ramp = jnp.linspace(0, 1, math.prod(sizes)).reshape(sizes)
    return ramp.astype(shape.dtype) if jnp.issubdtype(shape.dtype, jnp.floating) else jnp.ones(sizes, shape.dtype)


@ALL
def test_its_functions_are_exported_for_every_platform_and_size_of_the_batch(name):
    this = subject(name)
    pairs = "a" in this.source.spec
    mapped = (lambda: data.renamed(this.source, inputs="a", target="b")) if pairs else None
    experiment = runtime.Experiment(
        game=this.game, source=lambda: this.source, preview=runtime.image_grid, seed=SEED, batch_size=BATCH, steps=1,
        conditions=mapped,
    )  # fmt: skip
    trained = runtime.Trained(experiment, this.state, 0, runtime.make_mesh(jax.devices()[:1]))
    for function, described in programs.describe(trained, programs.exportable(trained)).items():
        made = programs.program(trained, described, function)
        assert made.exported.platforms == ("cpu", "cuda", "tpu")
        given = {each: jax.tree.map(example, shape) for each, shape in described.inputs.items()}
        wanted = jax.jit(described.call)(this.state, *given.values())
        np.testing.assert_allclose(
            made.exported.call(*(given[each] for each in made.inputs)), wanted, rtol=1e-5, atol=1e-6
        )
        assert not any(key.startswith("players.discriminator") for key in made.arrays)

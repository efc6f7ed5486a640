"""Variants of the standard game in a few lines each: they train, and a checkpoint restores everything."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import augment, core, gans, losses, nets, runtime
from gan_jax.gans import heads, terms
from gan_jax.types import InvalidInputError, Network, Term, Value
from tests.conformance.games import CLASSES, LABELLED, REAL, K, Z, mlp, mlp_critic


class Critic(nn.Module):
    """A critic that returns logits, and everything else that the terms may use, from a hidden layer."""

    scales: int = 1
    unseen: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x, label=None, *, train):
        h = nn.leaky_relu(nn.Dense(16)(x.reshape(x.shape[0], -1)))
        if self.scales > 1:
            return [nn.Dense(2**scale, name=f"scale_{scale}")(h) for scale in range(self.scales)]
        found = {
            "logits": nn.Dense(1, name="logits")(h)[:, 0],
            "features": [h],
            "classes": nn.Dense(2 * CLASSES, name="classes")(h),
            "codes": nn.Dense(2, name="codes")(h),
        }
        if label is not None:
            found |= {"embedding": nn.Dense(4, name="embedding")(h), "proxy": nn.Embed(CLASSES, 4, name="proxy")(label)}
        return {name: value for name, value in found.items() if name not in self.unseen}


def adam():
    return {f"{player}_optimizer": core.adam(1e-3, 0.5) for player in ("generator", "discriminator")}


def game(*ideas, critic=None, conditional=False, loss=losses.hinge, **options):
    labels = K if conditional else {}
    critic = critic or nets.from_linen(Critic())
    return gans.adversarial(mlp(**labels), critic, Z, loss=loss, terms=ideas, **labels, **(adam() | options))


def codes(inputs):
    return inputs[0][:, :2].argmax(1)


def distance(view, key):
    """Computes the distance to the samples of a frozen generator for the same latents."""
    teacher = view.state.frozen["teacher"]
    return Value(losses.l1(view.fake, mlp().apply(teacher["params"], {}, *view.inputs, train=False)[0]))


TEACHER = runtime.Frozen(
    {
        "params": mlp().init(jax.random.key(1), jnp.zeros((1, 4)))[0],
        "large": np.random.default_rng(0).integers(0, 255, 2**20, np.uint8),
    },
    "a test",
)
DIFF = augment.diff_augment(["color"])
LATE = Term("late", "generator", 1.0, lambda view, key: Value(view.fake**2), ramp=(16, 32))
IDEAS = {
    "multi-scale logits": lambda: game(critic=nets.from_linen(Critic(scales=2)), loss=losses.relativistic_pairing),
    "LeCam": lambda: game(terms.lecam(0.3)),
    "AC-GAN": lambda: game(*heads.auxiliary_classifier(), conditional=True),
    "InfoGAN": lambda: game(*heads.information(codes)),
    "feature matching": lambda: game(terms.feature_matching()),
    "bCR with DiffAugment": lambda: game(
        *terms.consistency(lambda key, x: DIFF(key, x, 1.0), fake_weight=10.0), augment=gans.Augmentation(DIFF)
    ),
    "zCR": lambda: game(*terms.latent_consistency()),
    "mode seeking": lambda: game(terms.mode_seeking(), latent_scale=0.5),
    "MMD and orthogonal kernels": lambda: game(
        *terms.distance(features=terms.named("embedding")), terms.orthogonal(), conditional=True
    ),
    "2C and ADC-GAN": lambda: game(
        *heads.conditional_contrastive(), *heads.auxiliary_discriminative(), conditional=True
    ),
    "multi-hinge": lambda: game(*heads.multi_hinge(), conditional=True),
    "D2D-CE": lambda: game(*heads.data_to_data_cross_entropy(), conditional=True),
    "top-k": lambda: game(keep=0.5),
    "DRAGAN": lambda: game(terms.dragan(), critic=mlp_critic()),
    "frozen network": lambda: game(Term("distance", "generator", 1.0, distance)),
    "a discriminator that starts late": lambda: game(discriminator_start=3),
    "a term that grows": lambda: game(
        Term("late", "generator", 1.0, lambda view, key: Value(view.fake**2), ramp=(16, 32))
    ),
    "two averages": lambda: game(ema_halflife_images=100.0, hooks=(core.averaging(10.0, 0.0, name="short"),)),
    "schedules": lambda: game(
        augment=gans.Augmentation(DIFF, 0.5),
        penalties=(gans.r1(1.0),),
        hooks=(
            core.schedule(
                {
                    "generator/learning_rate": core.cosine(1e-3, 1e-4, 64),
                    "discriminator/b2": core.linear(0.9, 0.99, 64),
                    "r1_weight": lambda images: 1.0 / (1.0 + images),
                    "augment_probability": core.linear(0.0, 1.0, 64, begin=16),
                }
            ),
        ),
    ),
}
STEPS = 4


REMEMBERING = ("LeCam", "bCR with DiffAugment", "frozen network", "a discriminator that starts late",
               "a term that grows", "two averages", "schedules")  # fmt: skip


def experiment(name, **options):
    made = IDEAS[name]()
    source = REAL if made.num_classes is None else LABELLED
    frozen = {"teacher": lambda: TEACHER} if name == "frozen network" else {}
    options = {"steps": STEPS, "frozen": frozen} | options
    return runtime.Experiment(
        game=made, source=lambda: source, preview=runtime.image_grid, seed=3, batch_size=16, steps_per_dispatch=2,
        report_every=2, sample_every=0, checkpoint_every=2, **options,
    )  # fmt: skip


def train(run, workdir):
    return runtime.train(run, workdir, log=lambda message: None)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", sorted(set(IDEAS) - set(REMEMBERING)))
def test_it_moves_both_players(name):
    before, state, means = state_of(name, 1)
    assert all(np.isfinite(value) for value in means.values())
    for player, was in before.players.items():
        assert not equal(was.params, state.players[player].params) and f"{player}/loss" in means


@pytest.mark.parametrize("name", REMEMBERING)
def test_it_trains_and_ends_the_same_after_a_stop(name, tmp_path):
    run = experiment(name)
    whole = train(run, tmp_path / "whole")
    assert train(dataclasses.replace(run, steps=2), tmp_path / "parts").step == 2
    assert train(run, tmp_path / "parts").state_sha256 == whole.state_sha256
    assert all(np.isfinite(value) for value in whole.metrics.values())
    names = {phase.name for phase in run.game.phases}
    assert {f"{phase}/loss" for phase in names} <= set(whole.metrics)


def state_of(name, steps=STEPS):
    """Trains some iterations; returns the states before and after the last one, and its metrics."""
    run = experiment(name)
    feed = run.source().feed(3, core.batches_per_iteration(run.game), 16, range(16))
    sent = next(feed.stream(0, steps))
    fetch = lambda i: feed.fetch(feed.data, sent[i], i)  # noqa: E731
    state = run.game.init(jax.random.key(3), jax.tree.map(lambda x: x[0], fetch(0)))
    for i in range(steps):
        before = state
        state, accumulator = run.step(state, fetch(i))
    return before, state, core.accumulator_means(accumulator)


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), a, b)))


@pytest.mark.parametrize("penalty", [gans.r1(1.0), gans.r2(1.0), gans.gradient_penalty(), terms.dragan()])
def test_penalties_are_of_the_logits_alone(penalty):
    """Other outputs of the discriminator make no difference."""
    whole = nets.from_linen(Critic())
    bare = Network(whole.init, lambda *a, **o: (whole.apply(*a, **o)[0]["logits"], a[1]))
    batch = {"real": jax.random.normal(jax.random.key(0), (1, 4, 8, 8, 1))}
    found = []
    for critic in (whole, bare):
        made = game(critic=critic, penalties=(penalty,))
        state = made.init(jax.random.key(1), {"real": batch["real"][0]})
        found.append(core.accumulator_means(core.make_step(made)(state, batch)[1])[f"discriminator/{penalty.name}"])
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0] > 0


def test_lecam_remembers():
    _, state, means = state_of("LeCam")
    assert (
        float(state.aux["lecam"].weight) == pytest.approx(1 - 0.99**STEPS, rel=1e-4)
        and means["discriminator/lecam"] >= 0
    )


def test_a_frozen_network_is_in_no_checkpoint_and_another_is_refused(tmp_path):
    run = experiment("frozen network")
    train(run, tmp_path / "run")
    with runtime.Checkpointer(tmp_path / "run" / "checkpoints", keep_last=1, read_only=True) as saved:
        names = saved.names(STEPS)
    assert names and not [name for name in names if "teacher" in name or "frozen" in name]
    files = (tmp_path / "run" / "checkpoints" / str(STEPS)).rglob("*")
    assert sum(x.stat().st_size for x in files if x.is_file()) < TEACHER.params["large"].nbytes / 2
    other = runtime.Frozen(jax.tree.map(lambda x: x + 1, TEACHER.params), "another")
    with pytest.raises(InvalidInputError, match="frozen teacher"):
        train(dataclasses.replace(run, frozen={"teacher": lambda: other}, steps=6), tmp_path / "run")


def test_sampling_reads_the_frozen_networks_that_it_takes_and_no_others(tmp_path):
    """A student is sampled without its teacher; a function that uses one frozen network, or all, gets them."""
    read = []

    def reader(name):
        def read_it():
            read.append(name)
            return TEACHER

        return read_it

    made = experiment("frozen network")
    teach = lambda state, key, inputs: mlp().apply(state.frozen["teacher"]["params"], {}, inputs, train=False)[0]  # noqa: E731
    every = lambda state, key, inputs: sum(jnp.sum(x) for x in jax.tree.leaves(state.frozen)) * inputs  # noqa: E731
    made = dataclasses.replace(
        made, game=made.game._replace(functions={**made.game.functions, "teach": teach, "every": every}),
        frozen={name: reader(name) for name in ("teacher", "other")},
    )  # fmt: skip
    with jax.set_mesh(runtime.make_mesh()):
        state = runtime.program.abstract_state(made, REAL.spec, runtime.make_mesh())
        state = made.game.init(jax.random.key(0), {"real": jnp.zeros((16, 8, 8, 1))})
        key, z = jax.random.key(0), np.ones((8, 4), np.float32)
        runtime.sample_grid(made, state, key, 8)
        assert read == []
        taught = runtime.sampling.begin_outputs(made, "teach", state, key, {"inputs": z})
        assert read == ["teacher"] and np.allclose(taught, mlp().apply(TEACHER.params["params"], {}, z, train=False)[0])
        runtime.sampling.begin_outputs(made, "every", state, key, {"inputs": z})
        assert read == ["teacher", "other"]


def test_a_game_without_samples_shows_and_measures_its_other_functions(tmp_path):
    made = experiment("feature matching")
    functions = {"reconstruct": lambda state, key, inputs: 0.5 * inputs}
    options = {"game": made.game._replace(functions=functions), "metrics": "l1", "evaluate_every": 2}
    with pytest.raises(InvalidInputError, match="sample_every=4: this game has no function 'sample'; give `previews`"):
        dataclasses.replace(made, sample_every=4, **options)
    previews = {"halves": runtime.side_by_side(options["game"], "reconstruct")}
    made = dataclasses.replace(made, sample_every=4, previews=previews, **options)
    train(made, tmp_path)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["halves_00000004.png"]
    last = lines(tmp_path)[-1]
    assert 0 < last["eval/l1"] < 1 and "samples/diversity" not in last
    state = made.game.init(jax.random.key(0), {"real": jnp.zeros((16, 8, 8, 1))})
    with pytest.raises(InvalidInputError, match="this game has no function 'sample': it has reconstruct"):
        runtime.sample_grid(made, state, jax.random.key(0), 4)


def test_a_player_of_another_run_is_frozen_or_fills_several(tmp_path):
    """The averaged generator of another run serves as a frozen teacher, and as the start of two players."""
    train(experiment("two averages", best_metric="generator/loss", best_mode="max"), tmp_path / "teacher")
    best = runtime.trained_player(tmp_path / "teacher", step="best")
    result = json.loads((tmp_path / "teacher" / "result.json").read_text())
    assert best.source.endswith(f"/{result['best_checkpoint']}")
    teacher = runtime.trained_player(tmp_path / "teacher", "ema.generator/short", step=STEPS)
    made = dataclasses.replace(experiment("frozen network"), frozen={"teacher": lambda: teacher})
    assert train(made, tmp_path / "student").status == "done" and "ema.generator/short of" in teacher.source
    assert teacher.sha256() in (tmp_path / "student" / "checkpoints" / str(STEPS) / "gan_jax.json").read_text()

    both = _two_generators()
    start = runtime.build_start(both, REAL.spec, runtime.make_mesh())
    begin = runtime.init_from(
        tmp_path / "teacher" / "checkpoints", fill={"generator": "ema.generator/short", "discriminator": "generator"},
        log=lambda message: None,
    )  # fmt: skip
    state = begin(start)["state"]
    assert equal(state.players["generator"].params, jax.tree.map(jnp.asarray, teacher.params["params"]))
    raw = runtime.trained_player(tmp_path / "teacher", "generator").params["params"]
    assert equal(state.players["discriminator"].params, jax.tree.map(jnp.asarray, raw))
    assert equal(state.ema["generator"]["params"], state.players["generator"].params)
    for wrong in ({"judge": "generator"}, {"generator": "ema.judge"}):
        with pytest.raises(InvalidInputError, match=r"expected players of this game .*ema.generator/short"):
            runtime.init_from(tmp_path / "teacher" / "checkpoints", fill=wrong, log=lambda message: None)(start)
    with pytest.raises(InvalidInputError, match="has no 'judge'"):
        runtime.trained_player(tmp_path / "teacher", "judge")
    with pytest.raises(InvalidInputError, match="has no checkpoint 7"):
        runtime.trained_player(tmp_path / "teacher", step=7)


def _two_generators():
    """Builds a game whose discriminator has the same arrays as the generator, as may happen in distillation."""
    critic = nets.from_linen(nets.MLPGenerator((8, 8, 1), (16,)))
    judge = Network(
        critic.init, lambda *a, **o: (critic.apply(*a[:2], a[2].reshape(-1, 64)[:, :4], **o)[0].mean((1, 2, 3)), a[1])
    )
    judge = judge._replace(init=lambda key, x: critic.init(key, x.reshape(-1, 64)[:, :4]))
    options = {"game": game(critic=judge, ema_halflife_images=100.0), "sample_every": 0}
    return dataclasses.replace(experiment("two averages"), **options)


def test_a_discriminator_that_starts_late_waits():
    before, state, means = state_of("a discriminator that starts late", 3)
    assert equal(before.players["discriminator"], state.players["discriminator"]) and "discriminator/loss" not in means
    before, state, means = state_of("a discriminator that starts late", 4)
    assert not equal(before.players["discriminator"].params, state.players["discriminator"].params)


def test_a_term_grows():
    """Before the iterations, 0, 16, 32, 48, ... images were seen; the ramp starts at 16 and is complete at 48."""
    batch = {"real": jnp.zeros((16, 8, 8, 1))}
    found = []
    for step in range(5):
        state = create(step)
        found.append(float(core.ramp(LATE, state, batch)))
    assert found == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert float(core.ramp(LATE._replace(ramp=(16, 0)), create(1), batch)) == 1.0
    assert float(core.ramp(LATE._replace(ramp=(17, 0)), create(1), batch)) == 0.0


def create(step):
    return core.create_state(jax.random.key(0), {}).replace(step=jnp.int32(step))


def test_two_averages_of_a_player():
    _, state, _ = state_of("two averages")
    assert set(state.ema) == {"generator", "generator/short"}
    assert not equal(*state.ema.values())
    assert {"short_ema_halflife_images", "ema_halflife_images"} <= set(core.get_hparams(state))


def test_schedules_move_what_they_name_and_the_log_has_it(tmp_path):
    train(experiment("schedules"), tmp_path)
    last = lines(tmp_path)[-1]
    t, rate = (1 - np.cos(np.pi * 1.0)) / 2, 1e-3
    assert last["hparams/generator/learning_rate"] == pytest.approx(rate + (1e-4 - rate) * t, rel=1e-5)
    assert last["hparams/discriminator/b2"] == pytest.approx(0.99) and last["hparams/r1_weight"] == pytest.approx(
        1 / 65
    )
    assert last["hparams/augment_probability"] == pytest.approx(48 / 64)
    first = lines(tmp_path)[0]
    assert first["hparams/discriminator/b2"] == pytest.approx(0.945) and first["hparams/r1_weight"] == pytest.approx(
        1 / 33
    )


def test_what_does_not_exist_is_told():
    first = {"real": jnp.zeros((4, 8, 8, 1))}
    wrong = game(hooks=(core.schedule({"learning_rat": core.constant(1.0)}),))
    with pytest.raises(InvalidInputError, match=r"schedule of learning_rat: .*generator/learning_rate"):
        wrong.init(jax.random.key(0), first)
    blind = game(terms.feature_matching(), critic=nets.from_linen(Critic(unseen=("features",))))
    state = blind.init(jax.random.key(0), first)
    with pytest.raises(InvalidInputError, match="this game needs 'features'"):
        core.make_step(blind)(state, {"real": jnp.zeros((1, 4, 8, 8, 1))})
    for bad, message in (
        ((terms.lecam(), terms.lecam()), "'lecam' of the discriminator is given twice"),
        ((Term("x", "generator", -1.0, distance),), "weight=-1"),
        ((Term("x", "generator", 1.0, distance), Term("x", "discriminator", 2.0, distance)), "they share one"),
        ((Term("x", "generator", 1.0, distance, every=0),), "every=0"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            game(*bad)
    for bad, message in (
        ({"hooks": (core.averaging(10.0),), "ema_halflife_images": 10.0}, "'generator' is averaged already"),
        ({"hooks": (core.averaging(10.0), core.averaging(10.0))}, "'generator' is averaged already"),
        ({"terms": (terms.lecam()._replace(name="a"), terms.lecam())}, "two of them keep lecam in state.aux"),
        (
            {"latent_scale": 1.0, "terms": (terms.lecam()._replace(hparams={"latent_scale": 1.0}),)},
            "latent_scale are both",
        ),
        ({"critic_steps": 2, "penalties": (gans.r1(1.0, every=2),)}, "critic_steps=2 with a lazy penalty"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            game(*bad.pop("terms", ()), **bad).init(jax.random.key(0), first)
    both = game(ema_halflife_images=10.0, hooks=(core.averaging(20.0, player="discriminator"),))
    values = both.init(jax.random.key(0), first).hparams
    assert values["ema_halflife_images"] == 10.0 and values["discriminator_ema_halflife_images"] == 20.0

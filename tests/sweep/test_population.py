"""Populations: members equal runs of their own, do not affect each other, and survive a stop."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, data, gans, losses, nets, runtime, sweep
from gan_jax.distributed.signals import StopRequest
from gan_jax.runtime.program import build_program, build_start
from gan_jax.sweep import members as programs
from gan_jax.types import InvalidInputError, Term, Value
from tests.conformance.games import GAMES, REAL

RING = data.ring()
RATES = ("generator/learning_rate", "discriminator/learning_rate")


def sgd():
    return optax.inject_hyperparams(optax.sgd)(learning_rate=0.05)


def ring_game(**options):
    options = {"generator_optimizer": sgd(), "discriminator_optimizer": sgd()} | options
    return gans.adversarial(
        nets.from_linen(nets.MLPGenerator((2,), (16,), bounded=False)),
        nets.from_linen(nets.MLPDiscriminator((16,))),
        core.normal(2),
        loss=losses.relativistic_pairing,
        penalties=(gans.r1(0.1, every=2), gans.r2(0.1)),
        ema_halflife_images=500.0,
        **options,
    )


GAME = ring_game()


def experiment(game=GAME, source=RING, **options):
    options = {
        "batch_size": 16, "steps": 40, "steps_per_dispatch": 5, "report_every": 10, "checkpoint_every": 10,
        "sample_every": 0, "seed": 0, "metrics": "mixture", "evaluate_every": 10, "best_metric": "eval/mixture_kl",
    } | options  # fmt: skip
    return runtime.Experiment(game=game, source=lambda: source, preview=runtime.scatter, **options)


PLAIN = {"metrics": "", "evaluate_every": 0, "best_metric": ""}


def rates(*values, seeds=None):
    return [
        sweep.Member(index if seeds is None else seeds[index], dict.fromkeys(RATES, value))
        for index, value in enumerate(values)
    ]


def train(run, members, workdir, *, devices=2, stop_at=None, **options):
    """Trains a population; returns outcomes and messages. Requests a stop at the message of step `stop_at`."""
    said, stop = [], StopRequest()

    def log(message):
        said.append(message)
        if stop_at is not None and message.startswith(f"step {stop_at}/"):
            stop.signal = 15

    options = {"devices": jax.devices()[:devices], "log": log, "stop": stop} | options
    return sweep.train_population(run, members, workdir, **options), said


def alone(run, member):
    """Trains a member as a run of its own, on one device; returns its state and metrics."""
    run, mesh = dataclasses.replace(run, seed=member.seed), runtime.make_mesh(jax.devices()[:1])
    source = run.open_source()
    with jax.set_mesh(mesh):
        start = build_start(run, source.spec, mesh)
        program, carried = build_program(run, source, mesh, start), start.init()
        state = core.set_hparams(carried["state"], member.hparams)
        state = jax.device_put(state, jax.tree.map(lambda x: x.sharding, start.abstract["state"]))
        accumulator, stream = carried["window"], program.stream(0)
        for _ in range(run.steps // program.length):
            state, accumulator = program.run(state, accumulator, program.data, next(stream))
    return state, core.accumulator_means(accumulator)


def final_states(run, members, workdir, outcomes):
    """Exports all members from the newest checkpoints; returns the workdir of each."""
    found = {}

    def keep(member):
        found[member] = workdir / "runs" / str(member)
        return found[member]

    sweep.export(run, run.open_source(), members, outcomes, workdir, keep,
                 lambda member: dataclasses.replace(run, seed=members[member].seed))  # fmt: skip
    return found


@pytest.mark.slow
@pytest.mark.parametrize("cache", [0, 2**21])
def test_a_member_is_the_run_that_it_would_be_alone(cache, monkeypatch):
    """200 steps of SGD with lazy penalties; members have their own data order, rates, latent scale, weights, average.

    If the caches cannot hold two members of a device, members run one after the other, otherwise side by side.
    """
    monkeypatch.setattr(programs, "_CPU_BYTES", cache)
    near = Term("near", "generator", 0.1, lambda view, key: Value((view.fake - view.state.frozen["point"]) ** 2))
    options = {"frozen": {"point": lambda: runtime.Frozen(np.array([1.0, -1.0], np.float32), "a test")}} | PLAIN
    game = ring_game(latent_scale=1.0, terms=(near,))
    run = experiment(game, steps=200, report_every=200, checkpoint_every=200, **options)
    members = [
        sweep.Member(seed, {**dict.fromkeys(RATES, rate), "latent_scale": scale, "r2_weight": weight,
                            "near_weight": weight, "ema_halflife_images": 5000 * rate})
        for seed, rate, scale, weight in ((0, 0.01, 1.0, 0.05), (7, 0.05, 0.5, 0.1), (2**31, 0.2, 2.0, 0.0))
    ]  # fmt: skip
    population, _ = population_after(run, members, run.steps)
    for slot, member in enumerate(members):
        state, means = alone(run, member)
        mine = programs.member_state(population, slot, population["alive"].sharding.mesh)
        assert mine.step == 200 and jax.tree.structure(mine) == jax.tree.structure(state)
        assert np.array_equal(*(np.asarray(jax.random.key_data(x.key)) for x in (mine, state)))
        for ours, theirs in zip(jax.tree.leaves((mine.players, mine.ema)), jax.tree.leaves((state.players, state.ema)),
                                strict=True):  # fmt: skip
            np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-5, atol=1e-5)
        accumulator = core.accumulator_means(jax.tree.map(lambda x, slot=slot: x[slot], population["window"]))
        assert accumulator == pytest.approx(means, rel=1e-4, abs=1e-5)


def population_after(run, members, steps, devices=2):
    source = run.open_source()
    mesh = programs.make_trial_mesh(len(members), jax.devices()[:devices])
    slots = list(range(len(members)))
    slots += [programs.EMPTY] * (programs.num_slots(len(members), mesh) - len(members))
    start = programs.build_start(run, source, members, slots, mesh)
    made = programs.build_population(run, source, members, slots, mesh, start)
    carried, stream = start.init(), made.stream(0)
    for _ in range(steps // made.length):
        carried = made.run(carried, made.data, next(stream))
    return carried, made


@pytest.mark.slow
def test_nothing_is_sent_between_members_and_lazy_phases_stay_conditions():
    run = experiment(**PLAIN)
    _, made = population_after(run, rates(*[0.01] * 8), 0, devices=8)
    text = made.text()
    sent = [
        word
        for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
        if word in text
    ]
    assert made.mesh.size == 8 and not sent
    assert "conditional(" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adversarial", "cyclegan", "mocogan", "wgan_gp"])
def test_games_of_all_kinds_train_as_members(name):
    make, source = GAMES[name]
    run = experiment(make(), source, batch_size=8, steps=2, steps_per_dispatch=1, report_every=2, checkpoint_every=2,
                     **PLAIN)  # fmt: skip
    carried, _ = population_after(run, [sweep.Member(seed) for seed in range(2)], 2)
    assert np.asarray(carried["alive"]).all()
    hashes = {
        runtime.state_sha256(programs.member_state(carried, slot, carried["alive"].sharding.mesh)) for slot in (0, 1)
    }
    assert len(hashes) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "weight"), [("pix2pix", "l1_weight"), ("cut", "nce_weight"), ("cyclegan", "cycle_weight")]
)
def test_translation_games_train_as_members_with_rates_and_weights_of_their_own(name, weight):
    """A member is the run that it would be alone, with SGD, and members with other values differ."""
    make, source = GAMES[name]
    sgd = {
        f"{player}_optimizer": optax.inject_hyperparams(optax.sgd)(learning_rate=1e-3)
        for player in ("generator", "discriminator")
    }
    run = experiment(make(**sgd), source, batch_size=8, steps=2, steps_per_dispatch=1, report_every=2,
                     checkpoint_every=2, **PLAIN)  # fmt: skip
    members = [
        sweep.Member(0, {"generator/learning_rate": rate, "discriminator/learning_rate": rate, weight: value})
        for rate, value in ((1e-3, 1.0), (1e-3, 30.0), (1e-2, 1.0))
    ]
    carried, _ = population_after(run, members, 2)
    mine = [programs.member_state(carried, slot, carried["alive"].sharding.mesh) for slot in range(3)]
    assert len({runtime.state_sha256(state) for state in mine}) == 3
    for state, member in zip(mine, members, strict=True):
        expected, _ = alone(run, member)
        for ours, theirs in zip(jax.tree.leaves(state.players), jax.tree.leaves(expected.players), strict=True):
            np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GAMES)
def test_every_game_makes_the_same_tree_in_every_program(name):
    make, source = GAMES[name]
    programs.check_members(experiment(make(), source, batch_size=8, **PLAIN), source, [sweep.Member(0)])


def test_batches_beyond_the_memory_of_a_device_are_refused_before_anything_is_compiled(monkeypatch):
    run, members, mesh = experiment(**PLAIN), rates(0.1, 0.2), programs.make_trial_mesh(2, jax.devices()[:1])
    start = programs.build_start(run, RING, members, [0, 1], mesh)
    monkeypatch.setattr(runtime.memory, "available", lambda device: 2**20)
    large = experiment(batch_size=2**20, **PLAIN)
    with pytest.raises(InvalidInputError, match=r"2 trials in one program, with batch_size=1048576: .*batches"):
        programs.build_start(large, RING, members, [0, 1], mesh)
    monkeypatch.setattr(runtime.memory, "available", lambda device: 1)
    with pytest.raises(InvalidInputError, match=r"batch_size=16: .*temporaries"):
        programs.build_population(run, RING, members, [0, 1], mesh, start)


def test_a_game_that_makes_its_optimisers_in_init_is_refused():
    def init(key, batch):
        return ring_game().init(key, batch)

    with pytest.raises(InvalidInputError, match=r"two calls of its init .* make optimisers once"):
        programs.check_members(experiment(GAME._replace(init=init), **PLAIN), RING, rates(0.1))


@pytest.mark.slow
def test_cyclegan_is_packed(tmp_path):
    make, source = GAMES["cyclegan"]
    options = {"batch_size": 8, "steps": 4, "steps_per_dispatch": 1, "report_every": 2, "checkpoint_every": 2}
    run = experiment(make(), source, **options, **PLAIN | {"best_metric": "generator/loss", "best_mode": "min"})
    outcomes, said = train(run, rates(1e-4, 2e-4, 4e-4, 8e-4), tmp_path, search=sweep.Halving(2, 2))
    assert any("packing" in message for message in said)
    assert sorted((x.status, x.step) for x in outcomes) == [("done", 4)] * 2 + [("pruned", 2)] * 2


@pytest.mark.slow
def test_a_diverging_member_is_frozen_and_the_others_do_not_notice(tmp_path):
    """Bit for bit, the others are what they are without it, although that program has one member less."""
    run, good = experiment(), rates(0.01, 0.05, 0.02, seeds=[0, 1, 3])
    members = [*good[:2], sweep.Member(2, dict.fromkeys(RATES, 1e30)), good[2]]
    outcomes, said = train(run, members, tmp_path / "with")
    without, _ = train(run, good, tmp_path / "without")
    assert [x.status for x in outcomes] == ["done", "done", "diverged", "done"]
    assert [outcomes[i].state_sha256 for i in (0, 1, 3)] == [x.state_sha256 for x in without]
    lost = outcomes[2]
    assert lost.step == 0 and any("member 2 is not finite" in message for message in said)
    carried, _ = population_after(run, members, 40)
    mesh = carried["alive"].sharding.mesh
    kept = [programs.member_state(carried, slot, mesh) for slot in range(4)]
    assert all(runtime.all_finite(state) for state in kept), "what has diverged is not kept as it was at last"
    assert [int(state.step) for state in kept] == [40, 40, 0, 40]
    assert json.loads((tmp_path / "with/members/00002/result.json").read_text())["status"] == "diverged"
    losses_of = [json.loads(line) for line in (tmp_path / "with/members/00003/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses_of] == [10, 20, 30, 40] and "eval/mixture_kl" in losses_of[-1]


def logged(workdir, member):
    """Returns the lines of a member's log; none for a member that diverged at once."""
    path = workdir / f"members/{member:05d}/metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


SEARCHES = {
    "none": (None, (0.01, 0.02, 0.05)),
    "halving": (sweep.Halving(10, 2), (0.01, 0.02, 0.05, 1e30, 0.1, 0.2)),
    "pbt, some diverge": (sweep.PopulationBased(20, bounds=dict.fromkeys(RATES, (0.01, 0.1))), (0.01, 1e30, 1e30)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name == "halving" else []) for name in SEARCHES]
)
def test_stopping_and_continuing_changes_nothing(name, tmp_path):
    search, values = SEARCHES[name]
    run, members = experiment(), rates(*values)
    whole, said = train(run, members, tmp_path / "whole", search=search)
    halves = tmp_path / "halves"
    for stop_at in (10, 30):
        stopped, _ = train(run, members, halves, search=search, stop_at=stop_at)
        assert any(x.status == "stopped" for x in stopped)
    again, _ = train(run, members, halves, search=search)
    assert [dataclasses.replace(x, metrics={}) for x in again] == [dataclasses.replace(x, metrics={}) for x in whole]
    for one in range(len(members)):
        kept = [
            [
                {k: v for k, v in json.loads(line).items() if k != "images_per_second"}
                for line in file.read_text().splitlines()
            ]
            for file in (x / "members" / f"{one:05d}" / "metrics.jsonl" for x in (tmp_path / "whole", halves))
            if file.exists()
        ]
        assert len(kept) in (0, 2) and (not kept or kept[0] == kept[1])
    if search is not None:
        decisions = [(x / "decisions.jsonl").read_text() for x in (tmp_path / "whole", halves)]
        assert decisions[0] == decisions[1] and decisions[0].count("\n") == {"halving": 2}.get(name, 1)
    if name == "halving":
        for line in decisions[0].splitlines():
            decision = json.loads(line)
            scores = {
                one: value["eval/mixture_kl"]
                for one in range(len(members))
                for value in logged(tmp_path / "whole", one)
                if value["step"] == decision["step"]
            }
            worst = [scores.pop(one) for one in decision["pruned"]]
            assert worst and scores and max(scores.values()) <= min(worst), "not the worst are pruned"
        assert [x.status for x in whole].count("done") == 1 and whole[3].status == "diverged"
        assert sum("packing" in message for message in said) == 2


@pytest.mark.slow
def test_every_member_can_be_had_as_a_run_of_its_own(tmp_path):
    """Pruned members can be exported too; their states are those of a population without pruning at that step."""
    run, members = experiment(), rates(0.01, 0.02, 0.05, 0.1)
    outcomes, _ = train(run, members, tmp_path, search=sweep.Halving(20, 2))
    where = final_states(run, members, tmp_path, outcomes)
    assert sorted(x.step for x in outcomes) == [20, 20, 40, 40]
    for outcome in outcomes:
        own, mesh = dataclasses.replace(run, seed=outcome.seed), runtime.make_mesh(jax.devices()[:1])
        with jax.set_mesh(mesh), runtime.Checkpointer(where[outcome.member] / "checkpoints", keep_last=1,
                                                      about=own.about()) as checkpointer:  # fmt: skip
            step, carried = checkpointer.restore_latest(build_start(own, RING.spec, mesh).abstract)
        assert (step, runtime.state_sha256(carried["state"])) == (outcome.step, outcome.state_sha256)
    shorter, _ = train(dataclasses.replace(run, steps=20), members, tmp_path / "short")
    pruned = next(x for x in outcomes if x.status == "pruned")
    assert shorter[pruned.member].state_sha256 == pruned.state_sha256


@pytest.mark.slow
def test_copies_take_everything_but_their_own_noise(tmp_path):
    run = experiment(steps=20)
    members = rates(0.01, 0.05)

    class Swap:
        replaces_diverged = False

        def due(self, step):
            return step == 10

        def decide(self, step, scores, hparams):
            assert set(scores) == {0, 1} and hparams[1] == pytest.approx(dict.fromkeys(RATES, 0.05))
            return sweep.Decision(copies={1: 0}, hparams={1: {RATES[0]: 0.03}})

    outcomes, _ = train(run, members, tmp_path, search=Swap())
    values = outcomes[1].hparams
    assert values[RATES[0]] == pytest.approx(0.03) and values[RATES[1]] == pytest.approx(0.01)
    assert outcomes[0].hparams[RATES[0]] == pytest.approx(0.01)
    assert outcomes[0].state_sha256 != outcomes[1].state_sha256, "from there on they differ"

    run = dataclasses.replace(run, report_every=5)
    stopped, _ = train(run, members, tmp_path / "stopped", search=Swap(), stop_at=5)
    assert [x.step for x in stopped] == [10, 10], "right after the decision"
    where = final_states(run, members, tmp_path / "stopped", stopped)
    states, mesh = [], runtime.make_mesh(jax.devices()[:1])
    for member in (0, 1):
        own = dataclasses.replace(run, seed=members[member].seed)
        with jax.set_mesh(mesh), runtime.Checkpointer(where[member] / "checkpoints", keep_last=1,
                                                      about=own.about()) as checkpointer:  # fmt: skip
            states.append(checkpointer.restore_latest(build_start(own, RING.spec, mesh).abstract)[1]["state"])
    parent, child = states
    assert not jnp.array_equal(jax.random.key_data(parent.key), jax.random.key_data(child.key)), "its own noise"
    parent = core.set_hparams(parent, {RATES[0]: 0.03})
    for part in ("players", "ema", "aux", "hparams"):
        ours, theirs = (jax.tree.leaves(getattr(state, part)) for state in (child, parent))
        assert ours and all(jnp.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)), part


@pytest.mark.slow
def test_population_based_training_replaces_what_has_diverged(tmp_path):
    """Even if so many diverge that the rest could be packed. Without a later decision, members stay diverged."""
    run = experiment(steps=40, checkpoint_every=10)
    search = sweep.PopulationBased(20)
    outcomes, said = train(run, rates(0.01, 1e30, 1e30, 1e30), tmp_path / "three", search=search)
    assert [(x.status, x.step) for x in outcomes] == [("done", 40)] * 4
    assert len({x.state_sha256 for x in outcomes}) == 4, "noise and hyperparameters of their own"
    factors = [outcome.hparams[name] / 0.01 for outcome in outcomes[1:] for name in RATES]
    assert all(min(abs(factor - 1.25), abs(factor - 0.8)) < 1e-6 for factor in factors)
    assert any("1 training, 0 pruned, 3 diverged" in message for message in said)
    for member in (1, 2, 3):
        assert f"member {member} is not finite: frozen as it was at step 0, until it becomes a copy of another" in said
        assert f"member {member} becomes a copy of member 0" in said
        log = (tmp_path / f"three/members/{member:05d}/metrics.jsonl").read_text()
        assert [json.loads(line)["step"] for line in log.splitlines()] == [30, 40]
    late, said = train(run, rates(0.01, 1e30), tmp_path / "late", search=sweep.PopulationBased(100))
    assert [(x.status, x.step) for x in late] == [("done", 40), ("diverged", 0)]
    assert sum("member 1 is not finite" in message for message in said) == 1
    none, _ = train(run, rates(1e30, 1e30), tmp_path / "none", search=search)
    assert [(x.status, x.step) for x in none] == [("diverged", 0)] * 2


@pytest.mark.slow
def test_a_search_may_prune_and_replace(tmp_path):
    class Both:
        replaces_diverged = True

        def due(self, step):
            return step in (10, 20)

        def decide(self, step, scores, hparams):
            return sweep.Decision(pruned=[1]) if step == 10 else sweep.Decision(copies={2: 0})

    run, members = experiment(steps=30), rates(0.01, 0.02, 1e30)
    outcomes, said = train(run, members, tmp_path, search=Both())
    assert [(x.status, x.step) for x in outcomes] == [("done", 30), ("pruned", 10), ("done", 30)]
    assert any(message.startswith("step 20/") and "1 training, 1 pruned, 1 diverged" in message for message in said)
    assert any("has already finished" in message for message in train(run, members, tmp_path, search=Both())[1])


@pytest.mark.slow
def test_what_diverges_between_reports_is_told_too(tmp_path):
    """They are noticed at a checkpoint, with and without others that go on, and if the population is packed there."""
    run = experiment(steps=80, report_every=40, checkpoint_every=20, **PLAIN)
    outcomes, said = train(run, rates(0.01, 1e30, 1e30, 1e30), tmp_path / "some")
    assert [x.status for x in outcomes] == ["done", "diverged", "diverged", "diverged"]
    assert any("packing" in message for message in said) and outcomes[0].step == 80
    outcomes, _ = train(run, rates(1e30, 1e30), tmp_path / "all")
    assert [x.status for x in outcomes] == ["diverged", "diverged"]


@pytest.mark.slow
def test_what_a_population_refuses(tmp_path):
    def refused(match, run=None, members=None, **options):
        with pytest.raises(InvalidInputError, match=match):
            train(run or experiment(), members or rates(0.01), tmp_path / str(len(match)), **options)

    refused("'width' cannot vary in a population: this game's runtime hyperparameters are discriminator/learning_rate",
            members=[sweep.Member(0, {"width": 3.0})])  # fmt: skip
    refused("member 1 sets", members=[sweep.Member(0), *rates(0.1)])
    refused("expected a number", members=rates(float("nan")))
    refused("best_metric is empty", run=experiment(**PLAIN), search=sweep.Halving(10))
    refused("fsdp=2", run=experiment(fsdp=2))
    refused("expected one of ", run=experiment(best_metric="eval/fid"))
    refused("has no value at step 5", run=experiment(report_every=5, evaluate_every=10, checkpoint_every=10),
            members=rates(0.1, 0.2), search=sweep.Halving(5))  # fmt: skip
    train(experiment(steps=10), rates(0.01), tmp_path / "one", devices=1)
    with pytest.raises(InvalidInputError, match="has other members"):
        train(experiment(steps=10), rates(0.02), tmp_path / "one", devices=1)
    with pytest.raises(InvalidInputError, match="one member or more"):
        train(experiment(), [], tmp_path / "none")


@pytest.mark.slow
def test_data_that_all_members_share_are_kept_once():
    run = experiment(GAMES["vanilla"][0](), REAL, batch_size=8, **PLAIN)
    _, made = population_after(run, [sweep.Member(seed) for seed in range(4)], 0)
    [held] = jax.tree.leaves(made.data)
    assert held.shape[0] == len(REAL.arrays["real"]), "no axis of members"
    first, second = np.asarray(next(made.stream(0)))[:2]
    assert (first != second).any(), "each has an order of its own"


@pytest.mark.slow
def test_a_population_goes_on_on_another_number_of_devices(tmp_path):
    """Equal up to rounding: six slots on three devices, then two, then three of four, as four do not divide six."""
    members = rates(*[0.01 * (1 + i) for i in range(6)])
    for steps, devices in ((10, 3), (20, 2), (30, 4)):
        outcomes, said = train(experiment(steps=steps), members, tmp_path, devices=devices)
        assert [x.step for x in outcomes] == [steps] * 6
    assert any("6 members for 3 devices" in message for message in said)
    whole, _ = train(experiment(steps=30), members, tmp_path / "whole", devices=6)
    for one, other in zip(outcomes, whole, strict=True):
        assert one.metrics["generator/loss"] == pytest.approx(other.metrics["generator/loss"], rel=1e-4)


@pytest.mark.slow
def test_schedules_differ_between_members_and_are_in_their_logs(tmp_path):
    def made(end):
        moves = core.schedule({"r2_weight": core.linear(0.05, end, 320)})
        return experiment(ring_game(hooks=(moves,)), steps=20, **PLAIN)

    ends = 0.1, 1.0
    members = [sweep.Member(0, {"r2_weight_end": end}) for end in ends]
    train(made(0.5), members, tmp_path / "population")
    for index, end in enumerate(ends):
        log = tmp_path / "population" / "members" / f"{index:05d}" / "metrics.jsonl"
        found = [json.loads(line) for line in log.read_text().splitlines()]
        halfway = 0.05 + (end - 0.05) * 160 / 320
        assert [line["hparams/r2_weight"] for line in found] == pytest.approx([halfway, end])
        alone = tmp_path / f"alone_{index}"
        alone.mkdir()
        runtime.train(made(end), alone, log=lambda message: None)
        last = json.loads((alone / "metrics.jsonl").read_text().splitlines()[-1])
        assert found[-1]["discriminator/r2"] == pytest.approx(last["discriminator/r2"], rel=1e-3)


def test_a_member_cannot_set_what_a_schedule_moves():
    moves = core.schedule({"r2_weight": core.linear(0.05, 0.1, 320)})
    run = experiment(ring_game(hooks=(moves,)), **PLAIN)
    for values in ({"r2_weight": 1.0}, {"r2_weight_start": 1.0}):
        with pytest.raises(InvalidInputError, match=r"'r2_weight' follows a schedule.*r2_weight_end"):
            programs.check_members(run, RING, [sweep.Member(0, values)])
    programs.check_members(run, RING, [sweep.Member(0, {"r2_weight": 1.0, "r2_weight_start": 1.0})])

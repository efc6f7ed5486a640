"""Training of a population: members in one program, each with its own log; searches prune, copy and perturb them.

In `workdir`, `population/000/` holds checkpoints of all members together. When only few members still train, they are
packed into a smaller program, whose checkpoints are in `population/001/`, and so on. These directories are called
generations. The last checkpoint of a generation is never deleted, so the state of every member stays available.
`members/00000/` has the log and the result of member 0.
"""

import contextlib
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import PyTree

from gan_jax import core, runtime
from gan_jax.data import Source
from gan_jax.deprecated import arguments
from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.distributed.signals import StopRequest, stop_signals
from gan_jax.distributed.watchdog import Watchdog
from gan_jax.host import put
from gan_jax.runtime import identity as identities
from gan_jax.runtime.experiment import EVALUATED
from gan_jax.runtime.health import moving
from gan_jax.runtime.identity import Identity
from gan_jax.runtime.logging import Pace
from gan_jax.runtime.program import Start
from gan_jax.runtime.progress import duration
from gan_jax.runtime.train import cache_in, make_evaluator
from gan_jax.sweep import members as programs
from gan_jax.sweep.logs import (
    DIVERGED,
    DONE,
    PRUNED,
    RUNNING,
    SAVED,
    STOPPED,
    Logs,
    Outcome,
    generation_directory,
    note_members,
    note_slots,
    read_slots,
)
from gan_jax.sweep.members import EMPTY, Carried, Member, Population
from gan_jax.types import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Decision:
    """The decision of a search at one step.

    Attributes:
      pruned: ids of the members that end here.
      copies: `{child: parent}`, ids of members that become copies of others.
      hparams: new hyperparameter values, by member id and name; set after the copies are made.
    """

    pruned: Sequence[int] = ()
    copies: Mapping[int, int] = dataclasses.field(default_factory=dict)
    hparams: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)


class Search(Protocol):
    """Protocol of a search, which prunes, copies and changes members at certain iterations; a pure function.

    Attributes:
      replaces_diverged: whether diverged members may become copies of others. If so, they keep their slots.
    """

    @property
    def replaces_diverged(self) -> bool: ...

    def due(self, step: int) -> bool:
        """Whether the search decides after `step` iterations; a report must be due then too."""

    def decide(self, step: int, scores: Mapping[int, float], hparams: Mapping[int, Mapping[str, float]]) -> Decision:
        """Decides what becomes of the members.

        Args:
          step: iterations done.
          scores: score of each member that trains; more is better.
          hparams: hyperparameters that vary, of the members that train or have diverged; the latter have no score.

        Returns:
          The decision.
        """


@arguments(say="log")
def train_population(
    experiment: runtime.Experiment,
    members: Sequence[Member],
    workdir: pathlib.Path,
    *,
    search: Search | None = None,
    log: Callable[[str], None] = print,
    stop: StopRequest | None = None,
    watchdog: Watchdog | None = None,
    devices: Sequence[jax.Device] | None = None,
    watch: Callable[[list[Outcome]], None] = lambda outcomes: None,
    evaluation_cache: pathlib.Path | None = None,
) -> list[Outcome]:
    """Trains a population to its end, from the newest checkpoint in `workdir` if there is one.

    A member computes the same as a run of its own with its seed and hyperparameters, up to rounding. A member that is
    not finite is frozen in its state from before that dispatch; the other members are not affected. The program has a
    slot for each member. When half of the slots are enough for the members that still train, these are packed into a
    smaller program, unless the search replaces diverged members. A run that is stopped and continued gives the same
    results as one that is not.

    Args:
      experiment: experiment that all members share. Its seed is not used, and there are no rollbacks. Members are
        compared by its `best_metric`.
      members: seed and hyperparameters of each member.
      workdir: gets `population/`, `members/`, `members.json` and `decisions.jsonl`.
      search: search that may prune and change members; none by default.
      log: gets the progress messages.
      stop: asks for a stop; by default SIGTERM and SIGINT do.
      watchdog: ends the process when a dispatch hangs.
      devices: devices to use; all by default.
      watch: is called on process 0 after every report, with an outcome for each member. Members that train are
        `running`.
      evaluation_cache: directory of classifiers and reference outputs of the metrics, see `runtime.Evaluator`;
        by default `workdir/evaluation`, or the user's cache directory if the workdir is in a bucket.

    Returns:
      The outcome of each member, in the order of ids.

    Raises:
      InvalidInputError: for hyperparameters that cannot vary, a workdir of other members, or storage that fails.
    """
    with contextlib.ExitStack() as stack:
        watchdog = watchdog or stack.enter_context(Watchdog())
        stop = stop or stack.enter_context(stop_signals())
        source = experiment.open_source()
        replaces = search is not None and search.replaces_diverged
        log(source.summary())
        programs.check_members(experiment, source, members)
        if search is not None and not experiment.best_metric:
            raise InvalidInputError(
                "best_metric is empty: a search compares members by it; set it, such as best_metric=eval/..."
            )
        experiment.check_metric(runtime.logged_names(experiment, source.spec))
        identity = identities.begin(workdir, watchdog.patience, SAVED)
        note_members(members, workdir, watchdog.patience)
        logs = Logs(workdir, len(members), writes=hosts.is_primary())
        if hosts.decide("results", lambda: logs.finished(experiment.steps) is not None, watchdog.patience):
            log(f"this population has already finished: results in {workdir / 'members'}")
            return logs.finished(experiment.steps) or []
        mesh, cache = runtime.make_mesh(), evaluation_cache or cache_in(workdir)
        with jax.set_mesh(mesh):
            judge = make_evaluator(experiment, mesh, cache, log, watchdog)
        chosen = tuple(jax.devices() if devices is None else devices)
        return _Trainer(
            experiment, members, workdir, source, search, log, stop, watchdog, chosen, logs, judge, watch, replaces,
            identity,
        ).train()  # fmt: skip


def about(experiment: runtime.Experiment) -> dict[str, Any]:
    """Returns what a population's checkpoints record about the experiment: all of `Experiment.about` but the seed."""
    return {key: value for key, value in experiment.about().items() if key != "seed"}


@dataclasses.dataclass
class _Trainer:
    """The training loop of a population, from step 0 or a checkpoint to the end; all processes run it in lockstep."""

    experiment: runtime.Experiment
    members: Sequence[Member]
    workdir: pathlib.Path
    source: Source
    search: Search | None
    log: Callable[[str], None]
    stop: StopRequest
    watchdog: Watchdog
    devices: tuple[jax.Device, ...]
    logs: Logs
    evaluator: runtime.Evaluator | None
    watch: Callable[[list[Outcome]], None]
    replaces: bool
    identity: Identity
    waiting: set[int] = dataclasses.field(default_factory=set)  # diverged members that the search may still replace

    def train(self) -> list[Outcome]:
        """Trains generation after generation to the end; see `train_population`."""
        generation, slots, step = self._newest()
        self.logs.recall(step, generation)
        carried: Carried | None = None
        while True:
            start, population = self._compile(slots, step)
            if carried is not None:
                carried = self._packed(carried, slots, start, population.mesh)
            with self._checkpointer(generation) as checkpointer:
                if carried is None:
                    carried = checkpointer.restore(step, start.abstract) if step else start.init()
                else:
                    checkpointer.save(step, carried)
                status, step, carried = self._run(population, checkpointer, step, carried, generation)
                checkpointer.wait()
            if status != RUNNING:
                break
            slots, generation = self._filled(self._training(carried)), generation + 1
            self.log(
                f"packing the {len(self._training(carried))} members that train into a program of {len(slots)} slots"
            )
            note_slots(self.workdir, generation, slots)
        self._finish(status, step, carried, generation)
        return [self.logs.outcomes[member] for member in range(len(self.members))]

    def _checkpointer(self, generation: int) -> runtime.Checkpointer:
        home, every = generation_directory(self.workdir, generation), self.experiment.checkpoint_every
        facts = about(self.experiment)
        return runtime.Checkpointer(home, keep_last=1, every=every, about=facts, identity=self.identity)

    def _newest(self) -> tuple[int, list[int], int]:
        """Finds the newest generation with an undamaged checkpoint, its slots and step; or all members at step 0."""

        def generations() -> list[int]:
            kept = (self.workdir / "population").glob("[0-9]*")
            return sorted((int(directory.name) for directory in kept), reverse=True)

        patience = self.watchdog.patience
        for number in hosts.decide("population", generations, patience):
            with self._checkpointer(number) as checkpointer:
                step = hosts.decide("checkpoint", functools.partial(checkpointer.newest, self.log), patience)
            if step is not None:
                self.log(f"continuing from the checkpoint of step {step:,}")
                return number, read_slots(self.workdir, number, len(self.members)), step
        slots = self._filled(list(range(len(self.members))))
        note_slots(self.workdir, 0, slots)
        return 0, slots, 0

    def _mesh(self, members: int) -> Mesh:
        return programs.make_trial_mesh(members, self.devices)

    def _filled(self, ids: list[int]) -> list[int]:
        return ids + [EMPTY] * (programs.num_slots(len(ids), self._mesh(len(ids))) - len(ids))

    def _compile(self, slots: list[int], step: int) -> tuple[Start, Population]:
        self.watchdog.beat("compiling")
        count = sum(slot != EMPTY for slot in slots)
        mesh = programs.make_trial_mesh(count, self.devices, slots=len(slots))
        self.log(f"compiling {count} members for {mesh.size} device{'s' if mesh.size > 1 else ''} ...")
        start = programs.build_start(self.experiment, self.source, self.members, slots, mesh)
        made = programs.build_population(self.experiment, self.source, self.members, slots, mesh, start, step)
        self.log(f"compiled in {made.compile_seconds:.1f} s; {made.length} iterations in one dispatch")
        return start, made

    def _packed(self, carried: Carried, slots: list[int], start: Start, mesh: Mesh) -> Carried:
        """Moves the members in `slots` into the smaller program; an empty slot gets a copy that does not train."""
        where = {int(member): slot for slot, member in enumerate(on_host(carried["member"])) if member != EMPTY}
        sources = [where.get(member, 0) for member in slots]
        values = {name: on_host(x)[sources] for name, x in core.get_hparams(carried["state"]).items()}
        packed = programs.rearranged(carried, sources, mesh, values, keys=True)
        facts = {"member": np.asarray(slots, np.int32), "alive": np.asarray(slots) != EMPTY}
        return packed | {name: _placed(x, start.abstract[name]) for name, x in facts.items()}

    def _run(
        self, population: Population, checkpointer: runtime.Checkpointer, step: int, carried: Carried, generation: int
    ) -> tuple[str, int, Carried]:
        """Runs a generation to the end (`DONE`), a signal (`STOPPED`), or until fewer slots are enough (`RUNNING`).

        Returns:
          How it ended, iterations done, and the arrays.
        """
        settings, vote, pace = (
            self.experiment,
            hosts.Vote(population.mesh),
            Pace(step, self.experiment.steps, self.experiment.batch_size),
        )
        self._note_ended(carried, generation)
        if step >= settings.steps or not self._training(carried):
            return DONE, step, carried
        if self._fewer_would_do(carried):
            return RUNNING, step, carried
        for inputs in population.stream(step):
            previous = carried["alive"]
            carried = population.run(carried, population.data, inputs)
            step += population.length
            jax.block_until_ready(previous)  # at most one dispatch runs while the next is prepared
            checkpointer.check()
            self.watchdog.beat(f"running up to step {step:,}")
            last = step >= settings.steps
            # `|`, not `or`: every process must make both calls in every dispatch.
            stopping = hosts.preempted() | vote.cast(self.stop.asked)
            if last or step % settings.report_every == 0:
                self._note_ended(carried, generation)
                self._report(population, step, carried, pace)
                outcomes = self.logs.outcomes | self._outcomes(step, carried, generation)
                if hosts.is_primary():
                    self.watch([outcomes[one] for one in sorted(outcomes)])
                carried = carried | {"window": _zeros(carried["window"])}
            deciding = not last and self.search is not None and self.search.due(step)
            if deciding:
                carried = self._decide(population, step, carried)
            if last or stopping or deciding or step % settings.checkpoint_every == 0:
                self._note_ended(carried, generation)
                checkpointer.save(step, carried)
                if not last and self._fewer_would_do(carried) and not stopping:
                    return (RUNNING if self._training(carried) else DONE), step, carried
            if last:
                return DONE, step, carried
            if stopping:
                self.log(f"stopped by {self.stop.name} after saving step {step:,}")
                return STOPPED, step, carried
        raise AssertionError("a data source ended; they are endless")

    def _training(self, carried: Carried) -> list[int]:
        """Returns the ids of the members that train, in the order of slots."""
        member, alive = on_host(carried["member"]), on_host(carried["alive"])
        return [int(x) for x, lives in zip(member, alive, strict=True) if lives]

    def _fewer_would_do(self, carried: Carried) -> bool:
        if self.replaces and self._training(carried):
            return False
        return 2 * len(self._filled(self._training(carried))) <= len(on_host(carried["member"]))

    def _note_ended(self, carried: Carried, generation: int) -> None:
        """Logs and records the members that stopped training; a diverged member that may be replaced has not ended."""
        member, alive = on_host(carried["member"]), on_host(carried["alive"])
        frozen = {int(one): slot for slot, one in enumerate(member) if one != EMPTY and not alive[slot]}
        if frozen.keys() <= self.logs.outcomes.keys() | self.waiting:
            return
        for one, outcome in self._outcomes(0, carried, generation).items():  # frozen members have steps of their own
            if one not in frozen or one in self.waiting:
                continue
            waits = self.replaces and outcome.status == DIVERGED
            if outcome.status == DIVERGED:
                until = ", until it becomes a copy of another" if waits else ""
                self.log(f"member {one} is not finite: frozen as it was at step {outcome.step:,}{until}")
            if waits:
                self.waiting.add(one)
            else:
                self._end(outcome, frozen[one], carried)

    def _end(self, outcome: Outcome, slot: int, carried: Carried) -> None:
        digest = runtime.state_sha256(programs.member_state(carried, slot, carried["alive"].sharding.mesh))
        self.logs.end(dataclasses.replace(outcome, state_sha256=digest))

    def _outcomes(self, step: int, carried: Carried, generation: int) -> dict[int, Outcome]:
        """Returns current outcomes, by id, of members that have not ended; a frozen member's step is `frozen_at`."""
        values = {name: on_host(x) for name, x in core.get_hparams(carried["state"]).items()}
        member, alive, diverged, at = (on_host(carried[x]) for x in ("member", "alive", "diverged", "frozen_at"))
        found = {}
        for slot, one in enumerate(member.tolist()):
            if one != EMPTY and one not in self.logs.outcomes:
                done, hparams = (
                    step if alive[slot] else int(at[slot]),
                    {name: float(x[slot]) for name, x in values.items()},
                )
                images, seed, last = done * self.experiment.batch_size, self.members[one].seed, self.logs.last[one]
                status = RUNNING if alive[slot] else DIVERGED if diverged[slot] else PRUNED
                found[one] = Outcome(one, status, done, images, seed, hparams, last, generation, "")
        return found

    def _finish(self, status: str, step: int, carried: Carried, generation: int) -> None:
        member = on_host(carried["member"]).tolist()
        for one, outcome in self._outcomes(step, carried, generation).items():
            ended = outcome if outcome.status != RUNNING else dataclasses.replace(outcome, status=status)
            self._end(ended, member.index(one), carried)

    def _report(self, population: Population, step: int, carried: Carried, pace: Pace) -> None:
        """Evaluates each member that trains, adds a line to its log, and prints a line about the population."""
        member, accumulator = on_host(carried["member"]), jax.tree.map(on_host, carried["window"])
        training, settings = self._training(carried), self.experiment
        moved = {name: on_host(values) for name, values in moving(settings.game, carried["state"]).items()}
        _, rate, eta = pace.measure(step)
        for slot, one in enumerate(member):
            if int(one) not in training:
                continue
            means = core.accumulator_means({name: x[slot] for name, x in accumulator.items()})
            means |= {name: float(values[slot]) for name, values in moved.items()}
            record = {"step": step, "images": step * settings.batch_size, "images_per_second": round(rate, 1), **means}
            self.logs.report(int(one), record | self._evaluate(step, carried, slot, population.mesh))
        ended = [outcome.status for outcome in self.logs.outcomes.values()]
        lost = ended.count(DIVERGED) + len(self.waiting)
        counts = f"{len(training)} training, {ended.count(PRUNED)} pruned, {lost} diverged"
        best = self._best(training)
        whole = f"{rate * len(training):,.0f} images/s  ETA {duration(eta)}"
        self.log(f"step {step:,}/{settings.steps:,}  images {step * settings.batch_size:,}  {whole}\n  {counts}{best}")

    def _best(self, training: Sequence[int]) -> str:
        scores = self._scores(training)
        if not scores:
            return ""
        best = max(scores, key=lambda member: scores[member])
        name = self.experiment.best_metric
        return f"  best {name} {self.logs.last[best][name]:.4g} of member {best}"

    def _scores(self, members: Sequence[int]) -> dict[int, float]:
        """Returns last values of `best_metric`, signed so that more is better; -inf if not finite (KL of no modes)."""
        name, sign = self.experiment.best_metric, -1.0 if self.experiment.best() == "min" else 1.0
        values = {x: sign * self.logs.last[x][name] for x in members if name and name in self.logs.last[x]}
        return {x: value if math.isfinite(value) else -math.inf for x, value in values.items()}

    def _evaluate(self, step: int, carried: Carried, slot: int, mesh: Mesh) -> dict[str, float]:
        """Computes metrics of a member's samples as a run of its own does; empty at steps where they are not due."""
        settings, judge = self.experiment, self.evaluator
        if judge is None or (step < settings.steps and step % settings.evaluate_every):
            return {}
        seed = self.members[int(on_host(carried["member"])[slot])].seed
        state = meshes.put_replicated(programs.member_state(carried, slot, mesh), judge.mesh)
        judge.seed = seed  # one evaluator serves all members
        with jax.set_mesh(judge.mesh):
            values = judge(functools.partial(runtime.stream_samples, settings, state, seed))
        return {f"{EVALUATED}{name}": value for name, value in values.items()}

    def _decide(self, population: Population, step: int, carried: Carried) -> Carried:
        """Asks the search, records its decision, and carries it out."""
        assert self.search is not None
        member, training = [int(x) for x in on_host(carried["member"])], self._training(carried)
        known = {name: on_host(x).copy() for name, x in core.get_hparams(carried["state"]).items()}
        slots = {one: slot for slot, one in enumerate(member)}
        varied = self.members[0].hparams
        there = {*training, *(one for one, lost in zip(member, on_host(carried["diverged"]), strict=True) if lost)}
        hparams = {one: {name: float(known[name][slots[one]]) for name in varied} for one in there}
        scores = self._scores(training)
        if set(scores) != set(training):
            raise InvalidInputError(
                f"{self.experiment.best_metric!r} has no value at step {step:,}, where the search decides"
            )
        decision = self.search.decide(step, scores, hparams)
        self.logs.decision(
            {"step": step, "images": step * self.experiment.batch_size, "scores": scores} | dataclasses.asdict(decision)
        )
        sources = list(range(len(member)))
        for child, parent in decision.copies.items():
            sources[slots[child]] = slots[parent]
            for values in known.values():
                values[slots[child]] = values[slots[parent]]
            if child in self.waiting:
                self.waiting.remove(child)
                self.log(f"member {child} becomes a copy of member {parent}")
        for one, changes in decision.hparams.items():
            for name, value in changes.items():
                known[name][slots[one]] = value
        changed = carried
        if decision.copies or decision.hparams:
            # A copy keeps its own root key: with its parent's it would draw the same noise.
            changed = programs.rearranged(carried, sources, population.mesh, known, keys=False)
        pruned = np.isin(member, list(decision.pruned))
        return changed | {
            "alive": _placed(on_host(changed["alive"]) & ~pruned, carried["alive"]),
            "frozen_at": _placed(np.where(pruned, np.int32(step), on_host(changed["frozen_at"])), carried["frozen_at"]),
            "member": carried["member"],  # `rearranged` has copied the ids of the parents too
        }


def on_host(x: jax.Array) -> np.ndarray:
    """Returns the whole of a small array on the host, in every process; all processes must call it."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _placed(host: Any, like: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    assert like.sharding is not None
    return put(np.asarray(host), like.sharding)


def _zeros(accumulator: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.jit(jnp.zeros_like, out_shardings=x.sharding)(x), accumulator)

"""What an experiment file's `build` returns: everything that the loop needs to know."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array
from PIL import Image

from gan_jax.core import Step, UpdateRule, alternating, make_step
from gan_jax.data import Source, renamed
from gan_jax.eval import PAIRS, Metric
from gan_jax.runtime.conditions import TARGET, Conditions
from gan_jax.runtime.evaluation import directions
from gan_jax.runtime.frozen import Frozen, Networks
from gan_jax.types import Batch, Game, InvalidInputError, PRNGKey, State

Preview = Callable[[State, PRNGKey, Batch], Array]
RECONSTRUCT = "reconstruct"
EVALUATED = "eval/"  # what names of metrics of samples begin with, in the log


def setting(
    default: Any = dataclasses.MISSING,
    *,
    least: int | None = None,
    among: tuple[str, ...] = (),
    free: bool = True,
    boundary: bool = False,
) -> Any:
    """A field that a config sets.

    Args:
      default: of the field; none if it must be given.
      least: what its value is at least.
      among: what its value is one of.
      free: whether a run may be continued with another value, since no iteration computes anything else by it.
      boundary: whether a dispatch must end at every multiple of it.

    Returns:
      The field.
    """
    about = {"least": least, "among": among, "free": free, "boundary": boundary}
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """One run: a game, its data, and a schedule counted in iterations (images are iterations times batch size).

    Attributes:
      game: the game, built once; a second build has optimisers that compare unequal.
      source: makes the data source; called when the data are needed, so that sampling loads none.
      preview: turns samples into a picture: `(samples, columns) -> image`.
      seed: seed of parameters, latents and data order.
      batch_size: examples of an update, over all devices.
      steps: iterations of the whole run.
      steps_per_dispatch: iterations compiled into one program, at most; the number taken divides every interval below
        and the total.
      report_every: iterations between lines of the log.
      sample_every: iterations between pictures of samples; 0 for none.
      checkpoint_every: iterations between checkpoints.
      keep_last: newest checkpoints that are kept.
      keep_every: keep each checkpoint whose step this divides; 0 for none.
      sample_count: samples in a picture.
      fsdp: devices that share the players' large arrays; 1 keeps a copy on each.
      metrics: names of metrics to compute during training; separated by commas, such as `fcd2k,mixture`; see
        `eval.metric_specs`. In the log they are `eval/NAME`.
      evaluate_every: iterations between those metrics; 0 for none.
      best_metric: metric of the log whose best checkpoint is kept; empty for none.
      best_mode: `min` or `max` of that metric is best; empty for what the metric of samples says, else `max`.
      on_divergence: `stop` or `rollback` when something is not finite: a loss, a gradient or a parameter. `rollback`
        continues from the last checkpoint with other noise.
      max_rollbacks: rollbacks after which a run stops.
      update_rule: how the game's phases make an iteration; see `core.rules`.
      reference: makes the data that metrics compare samples with, with labels where a classifier is to be trained on
        them; `source` by default.
      conditions: makes the source of what the game's functions map, where that is not drawn from a prior: its
        `'inputs'` are source images, its `'target'` what they should become, where that is known. Grids show its first
        examples, metrics use all. By default, for reconstructions, the images of the reference.
      previews: more pictures beside each grid of samples, by name: `(state, key, examples) -> images`, of the first
        `sample_count` examples of `conditions`; see `runtime.side_by_side`.
      own_metrics: metrics beside those of `eval.METRICS`, by the names that `metrics` has for them.
      frozen: networks that nothing trains, by their names in `state.frozen`: each a function that reads one. They are
        read once, are in no checkpoint, and a run is not continued with others.
    """

    game: Game
    source: Callable[[], Source]
    preview: Callable[[np.ndarray, int], Image.Image]
    seed: int = setting(least=0, free=False)
    batch_size: int = setting(least=1, free=False)
    steps: int = setting(least=1, boundary=True)
    steps_per_dispatch: int = setting(10, least=1)
    report_every: int = setting(100, least=1, boundary=True)
    sample_every: int = setting(1000, least=0, boundary=True)
    checkpoint_every: int = setting(1000, least=1, boundary=True)
    keep_last: int = setting(3, least=1)
    keep_every: int = setting(0, least=0)
    sample_count: int = setting(64, least=1)
    fsdp: int = setting(1, least=1)
    metrics: str = setting("")
    evaluate_every: int = setting(0, least=0)
    best_metric: str = setting("")
    best_mode: str = setting("", among=("", "min", "max"))
    on_divergence: str = setting("stop", among=("stop", "rollback"))
    max_rollbacks: int = setting(3, least=0)
    update_rule: UpdateRule = alternating
    reference: Callable[[], Source] | None = None
    conditions: Callable[[], Source] | None = None
    previews: Mapping[str, Preview] = dataclasses.field(default_factory=dict)
    own_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    frozen: Mapping[str, Callable[[], Frozen]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, about in settings().items():
            value, least, among = getattr(self, name), about["least"], about["among"]
            if least is not None and not least <= value < 2**63:
                raise InvalidInputError(f"{name}={value}: expected at least {least}, and below 2**63")
            if among and value not in among:
                raise InvalidInputError(f"{name}={value!r}: expected {' or '.join(filter(None, among))}")
        if self.best_metric and self.checkpoint_every % self.report_every:
            raise InvalidInputError(
                f"best_metric={self.best_metric!r}: checkpoint_every={self.checkpoint_every} must be a multiple of "
                f"report_every={self.report_every}, so that every checkpoint has its value"
            )
        if bool(self.metrics) != bool(self.evaluate_every) or self.evaluate_every % self.report_every:
            raise InvalidInputError(
                f"metrics={self.metrics!r}, evaluate_every={self.evaluate_every}: expected both or neither, and a "
                f"multiple of report_every={self.report_every}"
            )
        if self.best_metric.startswith(EVALUATED) and self.checkpoint_every % (self.evaluate_every or self.steps):
            raise InvalidInputError(
                f"best_metric={self.best_metric!r}: checkpoint_every={self.checkpoint_every} must be a multiple of "
                f"evaluate_every={self.evaluate_every}, so that every checkpoint has its value"
            )
        self.best()
        mapping = self.conditions is not None or RECONSTRUCT in self.game.functions
        if self.sample_every and not self.has_samples and not self.previews:
            raise InvalidInputError(
                f"sample_every={self.sample_every}: this game has no function 'sample'; give `previews` (such as "
                "`runtime.side_by_side(game, 'reconstruct')`), or set sample_every=0"
            )
        if self.game.prior is None and (self.sample_every or self.metrics) and not mapping:
            raise InvalidInputError("conditions is missing: this game has no prior, so its samples need inputs to map")
        if self.previews and not mapping:
            raise InvalidInputError(
                f"previews {', '.join(self.previews)}: expected `conditions`, whose examples they show"
            )

    @property
    def has_samples(self) -> bool:
        """Whether there is something to show as samples, and to compute metrics of samples with."""
        return "sample" in self.game.functions

    @functools.cached_property
    def step(self) -> Step:
        """One iteration; the same function each time, so that it is traced once for all programs with it."""
        return make_step(self.game, self.update_rule)

    @functools.cached_property
    def frozen_networks(self) -> Networks:
        """The networks that nothing trains, each read when it is first asked for."""
        return Networks(self.frozen)

    @functools.cached_property
    def opened(self) -> Source:
        """What `source` makes, made when it is first asked for; see `open_source`."""
        return self.source()

    @functools.cached_property
    def examples(self) -> Conditions:
        """What functions of the game map, opened when it is first asked for."""
        if self.conditions is not None:
            return Conditions(self.conditions())
        if RECONSTRUCT not in self.game.functions:
            raise InvalidInputError("conditions is missing: this game's function has no inputs to map")
        labelled = self.game.num_classes is not None and "label" in self.comparison.spec
        labels = {"label": "label"} if labelled else {}
        return Conditions(renamed(self.comparison, inputs="real", target="real", **labels))

    @functools.cached_property
    def comparison(self) -> Source:
        """What metrics compare with: `reference`; else the images of `source`, or the targets of `conditions`."""
        source = self.opened if self.reference is None else self.reference()
        if "real" in source.spec or self.reference is not None or self.conditions is None:
            return source
        return renamed(self.examples.source, real=TARGET) if self.examples.has_target else source

    def outputs(self, function: str, takes: str) -> tuple[str, Conditions | None]:
        """Which function makes what a metric takes, and what it maps.

        Args:
          function: by name; empty for the usual one: for pairs `reconstruct` or `translate` where the game has it, else
            `sample`.
          takes: see `eval.Metric`.

        Returns:
          The name; and the examples that it maps, None for samples that are drawn from a prior.
        """
        known = self.game.functions
        if not function:
            pairs = [name for name in (RECONSTRUCT, "translate") if name in known and takes == PAIRS]
            function = [*pairs, "sample"][0]
        if function not in known:
            raise InvalidInputError(f"this game has no function {function!r}: it has {', '.join(known)}")
        drawn = function == "sample" and self.game.prior is not None
        return function, None if drawn else self.examples

    def best(self) -> str:
        """Whether the `min` or the `max` of `best_metric` is best.

        Raises:
          InvalidInputError: where `best_mode` says the opposite of what the metric is.
        """
        own = directions(self.wanted_metrics(), self.own_metrics).get(self.best_metric.removeprefix(EVALUATED), "")
        if own and self.best_mode and own != self.best_mode:
            raise InvalidInputError(
                f"best_mode={self.best_mode!r}: of {self.best_metric} the {own} is best; leave best_mode out"
            )
        return self.best_mode or own or "max"

    def about(self) -> dict[str, Any]:
        """What a checkpoint of this experiment is of, beside its arrays."""
        phases = {
            f"phase {phase.name}": f"of {phase.player}, every {phase.every}, repeat {phase.repeat}"
            + (f", from {phase.start}" if phase.start else "")
            for phase in self.game.phases
        }
        networks = {f"frozen {name}": network.sha256() for name, network in self.frozen_networks.items()}
        return (
            phases | networks | {"num_classes": self.game.num_classes, "seed": self.seed, "batch_size": self.batch_size}
        )

    def allowed_rollbacks(self) -> int:
        """How many rollbacks the run may make."""
        return self.max_rollbacks if self.on_divergence == "rollback" else 0

    def check_metric(self, known: set[str]) -> None:
        """Refuses a `best_metric` that the log will not have."""
        if self.best_metric and self.best_metric not in known:
            raise InvalidInputError(f"best_metric={self.best_metric!r}: expected one of {', '.join(sorted(known))}")

    def wanted_metrics(self) -> list[str]:
        """The metrics of samples that are computed on the way, by name."""
        return [name.strip() for name in self.metrics.split(",") if name.strip()]

    def open_source(self) -> Source:
        """The data, once it is clear that its labels are the game's."""
        source = self.opened
        if source.num_classes != self.game.num_classes:
            raise InvalidInputError(
                f"{source.name} {_classes(source.num_classes)}, but the game {_classes(self.game.num_classes)}: leave "
                "labels out of the data source (labels=False), ask it for them (labels=True), or change num_classes"
            )
        return source

    def dispatch_length(self, start: int) -> int:
        """How many iterations one dispatch does: the most, up to `steps_per_dispatch`, that meet every boundary.

        Args:
          start: the step that training starts or resumes from.

        Returns:
          The number.
        """
        common = math.gcd(start, *(getattr(self, name) for name in _boundaries()))
        return max(n for n in range(1, self.steps_per_dispatch + 1) if common % n == 0)

    def boundaries(self, start: int) -> str:
        """Which values keep a dispatch from being `steps_per_dispatch` long, for the log."""
        values = {"the step continued from": start} | {name: getattr(self, name) for name in _boundaries()}
        odd = [f"{name}={value}" for name, value in values.items() if value % self.steps_per_dispatch]
        return f"no multiple of it: {', '.join(odd)}"


def settings() -> dict[str, Mapping[str, Any]]:
    """The fields of `Experiment` that a config sets, by name, with what `setting` says of each, and their `default`."""
    fields = [field for field in dataclasses.fields(Experiment) if "least" in field.metadata]
    return {field.name: {**field.metadata, "default": field.default} for field in fields}


def _boundaries() -> list[str]:
    return [name for name, about in settings().items() if about["boundary"]]


def _classes(count: int | None) -> str:
    return "has no labels" if count is None else f"has labels of {count} classes"

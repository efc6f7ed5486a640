"""What an experiment file's `build` returns: everything that the loop needs to know."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import PyTree
from PIL import Image

from gan_jax.core import Step, UpdateRule, alternating, make_step
from gan_jax.data import Source
from gan_jax.runtime.evaluation import directions
from gan_jax.runtime.frozen import Frozen
from gan_jax.types import Game, InvalidInputError

EVALUATED = "eval/"  # what names of metrics of samples begin with, in the log
_BOUNDARIES = ("steps", "report_every", "sample_every", "checkpoint_every")  # where a dispatch must end


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """One run: a game, its data, and a schedule counted in iterations (images are iterations times batch size).

    Attributes:
      game: built once; building it again gives optimisers that compare unequal.
      source: makes the data source; called when the data is needed, so that sampling loads none.
      preview: turns samples into a picture.
      seed: of parameters, latents and data order.
      batch_size: over all devices.
      steps: iterations of the whole run.
      steps_per_dispatch: at most so many iterations are compiled into one program; the number taken divides every
        interval below and the total.
      report_every: iterations between lines of the log.
      sample_every: iterations between sample grids; 0 for none.
      checkpoint_every: iterations between checkpoints.
      keep_last: how many of the newest checkpoints to keep.
      keep_every: keep for good each checkpoint whose step this divides; 0 for none.
      sample_count: samples in a grid.
      fsdp: over how many devices the large arrays of the players are split; 1 keeps a copy on each.
      metrics: of samples, computed on the way; names as `eval.requests` has them, separated by commas, such as `fcd2k`,
        or `mixture`. In the log they are `eval/NAME`.
      evaluate_every: iterations between those; 0 for none.
      best_metric: keep the checkpoint with the best value of this metric of the log too; empty for none.
      best_mode: whether the `min` or the `max` of it is best; empty for what the metric of samples says, else `max`.
      on_divergence: when a loss, a gradient or a parameter is not finite, `stop`, or `rollback` to the last checkpoint
        and go on from there with other noise.
      max_rollbacks: of a run; after so many it stops.
      update_rule: how the game's phases make an iteration; see `core.rules`.
      reference: makes the data that metrics compare samples with, with labels where a classifier is to be trained on
        them; `source` by default.
      sample_inputs: what a game without a prior maps to the samples of a grid.
      frozen: networks that nothing trains, by their names in `state.frozen`: each a function that reads one. They are
        read once, are in no checkpoint, and a run is not continued with others.
    """

    game: Game
    source: Callable[[], Source]
    preview: Callable[[np.ndarray, int], Image.Image]
    seed: int
    batch_size: int
    steps: int
    steps_per_dispatch: int = 10
    report_every: int = 100
    sample_every: int = 1000
    checkpoint_every: int = 1000
    keep_last: int = 3
    keep_every: int = 0
    sample_count: int = 64
    fsdp: int = 1
    metrics: str = ""
    evaluate_every: int = 0
    best_metric: str = ""
    best_mode: str = ""
    on_divergence: str = "stop"
    max_rollbacks: int = 3
    update_rule: UpdateRule = alternating
    reference: Callable[[], Source] | None = None
    sample_inputs: Callable[[], PyTree] | None = None
    frozen: Mapping[str, Callable[[], Frozen]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "steps",
            "steps_per_dispatch",
            "report_every",
            "checkpoint_every",
            "keep_last",
            "sample_count",
            "fsdp",
        ):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name}={getattr(self, name)}: expected at least 1")
        for name in ("seed", "sample_every", "evaluate_every", "keep_every", "max_rollbacks"):
            if not 0 <= getattr(self, name) < 2**63:
                raise InvalidInputError(f"{name}={getattr(self, name)}: expected at least 0, and below 2**63")
        for name, known in (("best_mode", ("", "min", "max")), ("on_divergence", ("stop", "rollback"))):
            if getattr(self, name) not in known:
                raise InvalidInputError(f"{name}={getattr(self, name)!r}: expected {' or '.join(filter(None, known))}")
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
        if self.game.prior is None and self.metrics:
            raise InvalidInputError(f"metrics={self.metrics!r}: this game has no prior to draw samples from")
        self.best()
        if self.game.prior is None and self.sample_every and self.sample_inputs is None:
            raise InvalidInputError("sample_inputs is missing: this game has no prior, so its grids need source images")

    @functools.cached_property
    def step(self) -> Step:
        """One iteration; the same function each time, so that it is traced once for all programs with it."""
        return make_step(self.game, self.update_rule)

    @functools.cached_property
    def frozen_networks(self) -> dict[str, Frozen]:
        """The networks that nothing trains, read when they are first asked for."""
        return {name: read() for name, read in self.frozen.items()}

    def best(self) -> str:
        """Whether the `min` or the `max` of `best_metric` is best.

        Raises:
          InvalidInputError: where `best_mode` says the opposite of what the metric is.
        """
        own = directions(self.wanted_metrics()).get(self.best_metric.removeprefix(EVALUATED), "")
        if own and self.best_mode and own != self.best_mode:
            raise InvalidInputError(
                f"best_mode={self.best_mode!r}: of {self.best_metric} the {own} is best; leave best_mode out"
            )
        return self.best_mode or own or "max"

    def about(self) -> dict[str, Any]:
        """What a checkpoint of this experiment is of, beside its arrays."""
        phases = {
            f"phase {phase.name}": f"of {phase.player}, every {phase.every}, repeat {phase.repeat}"
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
        source = self.source()
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
        common = math.gcd(start, *(getattr(self, name) for name in _BOUNDARIES))
        return max(n for n in range(1, self.steps_per_dispatch + 1) if common % n == 0)

    def boundaries(self, start: int) -> str:
        """Which values keep a dispatch from being `steps_per_dispatch` long, for the log."""
        values = {"the step continued from": start} | {name: getattr(self, name) for name in _BOUNDARIES}
        odd = [f"{name}={value}" for name, value in values.items() if value % self.steps_per_dispatch]
        return f"no multiple of it: {', '.join(odd)}"


def _classes(count: int | None) -> str:
    return "has no labels" if count is None else f"has labels of {count} classes"

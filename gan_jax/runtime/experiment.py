"""The `Experiment`, which an experiment file's `build` returns: everything that the training loop needs to know."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array
from PIL import Image

from gan_jax.core import Step, UpdateRule, alternating, make_step
from gan_jax.data import Source, renamed
from gan_jax.eval import MATRIX, PAIRS, Metric
from gan_jax.runtime.conditions import TARGET, Conditions, Domain, check_maps
from gan_jax.runtime.evaluation import directions
from gan_jax.runtime.film import Film
from gan_jax.runtime.frozen import Frozen, Networks
from gan_jax.types import Batch, Game, InvalidInputError, PRNGKey, State

Preview = Callable[[State, PRNGKey, Batch], Array]  # (state, key, examples) -> images
RECONSTRUCT = "reconstruct"
EVALUATED = "eval/"  # prefix in the log for metrics of samples


def setting(
    default: Any = dataclasses.MISSING,
    *,
    least: int | None = None,
    most: int = 2**31 - 1,
    among: tuple[str, ...] = (),
    free: bool = True,
    boundary: bool = False,
) -> Any:
    """Declares a field of `Experiment` that a config sets.

    Args:
      default: default value; without one the field is required.
      least: smallest allowed value.
      most: largest allowed value where there is a smallest; by default the largest step that the state can count.
      among: allowed values.
      free: whether a run may be continued with another value, because no iteration's result depends on it.
      boundary: whether a dispatch must end at every multiple of the value.

    Returns:
      The field.
    """
    about = {"least": least, "most": most, "among": among, "free": free, "boundary": boundary}
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Experiment:
    """A run: a game, its data, and a schedule counted in iterations (images are iterations times batch size).

    Attributes:
      game: game to train, built once; a second build has optimisers that compare unequal.
      source: function that opens the data source. It is called when the data are needed, so sampling loads none.
      preview: `(samples, columns) -> image`, draws samples as a picture, or clips as a `Film`.
      seed: seed of parameters, latents and data order.
      batch_size: examples per update, over all devices.
      steps: iterations of the whole run.
      steps_per_dispatch: iterations in one compiled program, at most; the number used divides `steps` and every
        interval below.
      report_every: iterations between lines of the log.
      sample_every: iterations between pictures of samples; 0 for none.
      checkpoint_every: iterations between checkpoints.
      keep_last: number of newest checkpoints to keep.
      keep_every: keep checkpoints at multiples of this step; 0 for none.
      sample_count: samples per picture.
      fsdp: devices that share each large array of the players; 1 keeps a copy on every device.
      metrics: metrics to compute during training, by name; separated by commas, such as `fcd2k,mixture`. See
        `eval.metric_specs`. In the log they are `eval/NAME`.
      evaluate_every: iterations between evaluations of these metrics; 0 for none.
      best_metric: metric in the log whose best checkpoint is kept; empty for none.
      best_mode: `min` or `max`, whichever is best; empty for the direction that a metric of samples defines, else
        `max`.
      on_divergence: `stop` or `rollback` at a non-finite value; of a loss, a gradient or a parameter. `rollback`
        continues from the last checkpoint with other noise.
      max_rollbacks: rollbacks before a run stops.
      update_rule: how the game's phases make up an iteration; see `core.rules`.
      reference: function that opens the data source that metrics compare samples with; `source` by default. It needs
        labels where a classifier is to be trained on it.
      conditions: function that opens the source of the inputs that the game's functions map, where these are not drawn
        from a prior. Its `'inputs'` are source images, its `'target'`, where known, the desired outputs. Grids show
        its first examples, metrics use all. By default, for reconstructions, the images of the reference.
      domains: data of functions that map and make images of other domains than `conditions` and `reference` have, by
        the functions' names: `{"translate_back": runtime.Domain(...)}`. Metrics such as `translate_back:fid` and the
        previews of these functions use them.
      previews: additional pictures for each grid of samples, by name: `(state, key, examples) -> images`, called with
        the first `sample_count` examples of `conditions`; see `runtime.side_by_side`.
      own_metrics: user-defined metrics, in addition to `eval.METRICS`, by the names that `metrics` uses for them.
      frozen: networks that are not trained, by their names in `state.frozen`; each value is a function that reads one.
        They are read once and are in no checkpoint. A run cannot be continued with other networks.
      claim: function that claims the workdir for an experiment that has a file, as `runs.build` sets it: it returns
        whether it did, and raises an error if the workdir was made by another config.
    """

    game: Game
    source: Callable[[], Source]
    preview: Callable[[np.ndarray, int], Image.Image | Film]
    seed: int = setting(least=0, most=2**63 - 1, free=False)
    batch_size: int = setting(least=1, free=False)
    steps: int = setting(least=1, boundary=True)
    steps_per_dispatch: int = setting(10, least=1)
    report_every: int = setting(100, least=1, boundary=True)
    sample_every: int = setting(1000, least=0, boundary=True)
    checkpoint_every: int = setting(1000, least=1, boundary=True)
    keep_last: int = setting(3, least=1)
    keep_every: int = setting(0, least=0)
    sample_count: int = setting(64, least=1, most=2**16)
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
    domains: Mapping[str, Domain] = dataclasses.field(default_factory=dict)
    previews: Mapping[str, Preview] = dataclasses.field(default_factory=dict)
    own_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    frozen: Mapping[str, Callable[[], Frozen]] = dataclasses.field(default_factory=dict)
    claim: "Callable[[Experiment, pathlib.Path], bool] | None" = None

    def __post_init__(self) -> None:
        for name, about in settings().items():
            value, least, among = getattr(self, name), about["least"], about["among"]
            if least is not None and not least <= value <= about["most"]:
                raise InvalidInputError(f"{name}={value}: expected at least {least}, and at most {about['most']}")
            if among and value not in among:
                raise InvalidInputError(f"{name}={value!r}: expected {' or '.join(filter(None, among))}")
        self.best()
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
        mapping = self.conditions is not None or RECONSTRUCT in self.game.functions
        if self.sample_every and not self.has_samples and not self.previews:
            raise InvalidInputError(
                f"sample_every={self.sample_every}: this game has no function 'sample'; give `previews` (such as "
                "`runtime.side_by_side(game, 'reconstruct')`), or set sample_every=0"
            )
        if self.game.prior is None and (self.sample_every or self.metrics) and not mapping:
            raise InvalidInputError("conditions is missing: this game has no prior, so its samples need inputs to map")
        if unknown := [name for name in self.domains if name not in self.game.functions]:
            raise InvalidInputError(
                f"domains of {', '.join(unknown)}: this game has the functions {', '.join(self.game.functions)}"
            )
        if self.previews and not mapping:
            raise InvalidInputError(
                f"previews {', '.join(self.previews)}: expected `conditions`, whose examples they show"
            )

    def __repr__(self) -> str:
        """Shows the settings that are not at their defaults; games and networks have no short text."""
        values = {
            name: getattr(self, name) for name, about in settings().items() if getattr(self, name) != about["default"]
        }
        return f"Experiment({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    @property
    def has_samples(self) -> bool:
        """Whether the game makes samples, for pictures and for metrics of samples."""
        return "sample" in self.game.functions

    @functools.cached_property
    def step(self) -> Step:
        """The function of one iteration. It is made once, so that it is traced once for all programs that use it."""
        return make_step(self.game, self.update_rule)

    @functools.cached_property
    def frozen_networks(self) -> Networks:
        """The networks that are not trained; each is read on first use."""
        return Networks(self.frozen)

    @functools.cached_property
    def opened(self) -> Source:
        """The data source, opened on first use; `open_source` also checks its labels."""
        return self.source()

    @functools.cached_property
    def examples(self) -> Conditions:
        """The examples that functions of the game map, opened on first use."""
        if self.conditions is not None:
            return Conditions(self.conditions())
        if RECONSTRUCT not in self.game.functions:
            raise InvalidInputError("conditions is missing: this game's function has no inputs to map")
        labelled = self.game.num_classes is not None and "label" in self.comparison.spec
        labels = {"label": "label"} if labelled else {}
        return Conditions(renamed(self.comparison, inputs="real", target="real", **labels))

    @functools.cached_property
    def _mapped(self) -> dict[str, Conditions]:
        return {}

    def examples_of(self, function: str) -> Conditions:
        """Returns the examples that a function maps: those of its domain, opened on first use, else `examples`."""
        if function not in self.domains:
            return self.examples
        if function not in self._mapped:
            self._mapped[function] = Conditions(self.domains[function].conditions())
        return self._mapped[function]

    @property
    def references(self) -> dict[str, Callable[[], Source]]:
        """Functions that open the source that metrics of a function compare with, for functions with a domain."""

        def opened(name: str) -> Source:
            reference = self.domains[name].reference
            return renamed(self.examples_of(name).source, real=TARGET) if reference is None else reference()

        return {name: functools.partial(opened, name) for name in self.domains}

    @functools.cached_property
    def comparison(self) -> Source:
        """The source that metrics compare with: `reference`, else the images of `source` or targets of `conditions`."""
        source = self.opened if self.reference is None else self.reference()
        if "real" in source.spec or self.reference is not None or self.conditions is None:
            return source
        return renamed(self.examples.source, real=TARGET) if self.examples.has_target else source

    def outputs(self, function: str, takes: str) -> tuple[str, Conditions | None]:
        """Resolves which function makes the outputs that a metric takes, and which examples it maps.

        Args:
          function: name of the function; empty for the usual one: for pairs `reconstruct` or `translate` if the game
            has it, for a matrix `matrix`, else `sample`.
          takes: `samples`, `pairs` or `matrix`, as in `eval.Metric`.

        Returns:
          The name of the function, and the examples that it maps; None for samples that are drawn from a prior.
        """
        known = self.game.functions
        if not function:
            pairs = [name for name in (RECONSTRUCT, "translate") if name in known and takes == PAIRS]
            function = [*pairs, MATRIX if takes == MATRIX else "sample"][0]
        if function not in known:
            raise InvalidInputError(f"this game has no function {function!r}: it has {', '.join(known)}")
        drawn = function in ("sample", MATRIX) and self.game.prior is not None
        return function, None if drawn else self.examples_of(function)

    def best(self) -> str:
        """Returns whether the `min` or the `max` of `best_metric` is best.

        Raises:
          InvalidInputError: if `best_mode` contradicts the metric's own direction.
        """
        own = directions(self.wanted_metrics(), self.own_metrics).get(self.best_metric.removeprefix(EVALUATED), "")
        if own and self.best_mode and own != self.best_mode:
            raise InvalidInputError(
                f"best_mode={self.best_mode!r}: of {self.best_metric} the {own} is best; leave best_mode out"
            )
        return self.best_mode or own or "max"

    def about(self) -> dict[str, Any]:
        """Returns the description that checkpoints store beside their arrays: phases, frozen networks, seed, sizes."""
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
        """Returns the number of rollbacks that the run may make."""
        return self.max_rollbacks if self.on_divergence == "rollback" else 0

    def check_metric(self, logged: Iterable[str]) -> None:
        """Raises `InvalidInputError` for a `best_metric` that the log will not have: before anything is compiled.

        Args:
          logged: names that the log has besides the metrics of samples.
        """
        known = {*logged, *(f"{EVALUATED}{name}" for name in directions(self.wanted_metrics(), self.own_metrics))}
        if self.best_metric and self.best_metric not in known:
            raise InvalidInputError(f"best_metric={self.best_metric!r}: expected one of {', '.join(sorted(known))}")

    def wanted_metrics(self) -> list[str]:
        """Returns the names of the metrics of samples to compute during training."""
        return [name.strip() for name in self.metrics.split(",")] if self.metrics else []

    def open_source(self) -> Source:
        """Opens the data source, and checks that its classes, and those of its maps, are those of the game."""
        source = self.opened
        if source.num_classes != self.game.num_classes:
            raise InvalidInputError(
                f"{source.name} {_classes(source.num_classes)}, but the game {_classes(self.game.num_classes)}: leave "
                "labels out of the data source (labels=False), ask it for them (labels=True), or change num_classes"
            )
        check_maps(source, self.game.map_classes)
        return source

    def dispatch_length(self, start: int) -> int:
        """Returns the iterations per dispatch: the most, up to `steps_per_dispatch`, that meet every boundary.

        Args:
          start: step that training starts or resumes from.

        Returns:
          The number of iterations.
        """
        # gcd(x, 0) is x, so intervals of 0 (never) and a start at 0 impose no boundary.
        common = math.gcd(start, *(getattr(self, name) for name in _boundaries()))
        return max(n for n in range(1, self.steps_per_dispatch + 1) if common % n == 0)

    def boundaries(self, start: int) -> str:
        """Describes, for the log, which values keep a dispatch shorter than `steps_per_dispatch`."""
        values = {"the continued run's step": start} | {name: getattr(self, name) for name in _boundaries()}
        odd = [f"{name}={value}" for name, value in values.items() if value % self.steps_per_dispatch]
        return "\n".join(f"    {name} is not a multiple of it" for name in odd)


def settings() -> dict[str, Mapping[str, Any]]:
    """Returns the fields of `Experiment` that a config sets: by name, the arguments of `setting` and the `default`."""
    fields = [field for field in dataclasses.fields(Experiment) if "least" in field.metadata]
    return {field.name: {**field.metadata, "default": field.default} for field in fields}


def _boundaries() -> list[str]:
    return [name for name, about in settings().items() if about["boundary"]]


def _classes(count: int | None) -> str:
    return "has no labels" if count is None else f"has labels of {count} classes"

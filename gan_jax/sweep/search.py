"""Searches over the members of a population: successive halving and population-based training.

Both decide from step, scores and hyperparameters alone, so a population that is stopped and continued decides the same.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from gan_jax.sweep.population import Decision
from gan_jax.types import InvalidInputError

_TRIES = 20  # attempts to draw values that no other copy has; all fail if bounds leave no choice, or all values are 0


@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving: at rungs of `first`, `first * eta`, `first * eta**2`, ... iterations, the best 1/`eta` go on.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", arXiv:1502.07943,
    2015. The rungs are those of ASHA (Li et al., "A System for Massively Parallel Hyperparameter Tuning",
    arXiv:1810.05934, 2018). ASHA decides without waiting for other trials. Members of a population reach a rung
    together, so no waiting is needed.

    Attributes:
      first: iterations of the first rung.
      eta: reduction factor: of n members at a rung, the best `max(1, n // eta)` go on.
    """

    replaces_diverged: ClassVar = False
    first: int
    eta: int = 3

    def __post_init__(self) -> None:
        if self.first < 1 or self.eta < 2:
            raise InvalidInputError(f"first={self.first}, eta={self.eta}: expected first >= 1 and eta >= 2")

    def due(self, step: int) -> bool:
        """Whether `step` is a rung."""
        rung = self.first
        while rung < step:
            rung *= self.eta
        return rung == step

    def rungs(self, steps: int) -> list[int]:
        """Returns the rungs below `steps`."""
        return [step for step in (self.first * self.eta**i for i in range(64)) if step < steps]

    def decide(self, step: int, scores: Mapping[int, float], hparams: Mapping[int, Mapping[str, float]]) -> Decision:
        """Prunes all but the best 1/`eta` of the members; ties go to the lower id."""
        del step, hparams
        ranking = sorted(scores, key=lambda member: (-scores[member], member))
        return Decision(pruned=sorted(ranking[max(1, len(ranking) // self.eta) :]))


@dataclasses.dataclass(frozen=True)
class PopulationBased:
    """Population-based training: at intervals the worst members become copies of the best, with other hyperparameters.

    A copy takes the parent's networks, optimisers, averages and hyperparameters, and keeps its own data order and
    noise. Each of its hyperparameters is then multiplied or divided by `factor`; or, with probability `resample`,
    multiplied by `factor**u`, u uniform in [-4, 4]. The result is clipped to `bounds`; 0 stays 0. If all values equal
    those of the parent or of another copy of it, they are drawn again in the second way, up to 20 times: if all members
    have one seed, equal members would train identically. All diverged members are replaced, however many. Members whose
    score is not finite are copied only if no member among the best has a finite score.

    Jaderberg et al., "Population Based Training of Neural Networks", arXiv:1711.09846, 2017, use truncation selection
    too, with factors of 1.2 and 0.8. Here a factor and its inverse are used, which cause no drift.

    Attributes:
      every: iterations between decisions.
      seed: seed of the random draws.
      share: share of the members that are replaced, and of the members that are copied.
      factor: factor of a change, above 1.
      resample: probability of the second kind of change, for each hyperparameter.
      bounds: `(least, most)` by name; a hyperparameter without bounds may become any positive number.
    """

    replaces_diverged: ClassVar = True
    every: int
    seed: int = 0
    share: float = 0.2
    factor: float = 1.25
    resample: float = 0.0
    bounds: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 < self.share <= 0.5 or self.factor <= 1 or not 0 <= self.resample <= 1:
            raise InvalidInputError(
                f"every={self.every}, share={self.share}, factor={self.factor}, resample={self.resample}: expected "
                "every >= 1, share above 0 and up to 0.5, factor > 1, resample from 0 to 1"
            )

    def due(self, step: int) -> bool:
        """Whether `step` is the end of an interval."""
        return step % self.every == 0

    def decide(self, step: int, scores: Mapping[int, float], hparams: Mapping[int, Mapping[str, float]]) -> Decision:
        """Makes each of the worst members a copy of a random one of the best."""
        if not scores:
            return Decision()
        ranking = sorted(scores, key=lambda member: (-scores[member], member))
        lost = sorted(hparams.keys() - scores.keys())
        there = [*ranking, *lost]
        worst = there[len(there) - max(self._part(there), len(lost)) :]
        best = ranking[: max(1, self._part(ranking))]
        best = [member for member in best if math.isfinite(scores[member])] or best
        random = np.random.default_rng([self.seed, step])  # no state is kept, so a continued search draws the same
        copies = {child: int(random.choice(best)) for child in worst}
        changed: dict[int, dict[str, float]] = {}
        for child, parent in copies.items():
            family = [hparams[parent], *(changed[other] for other in changed if copies[other] == parent)]
            changed[child] = self._explored(hparams[parent], self.resample, random)
            for _ in range(_TRIES):
                if not any(_same(changed[child], other) for other in family):
                    break
                changed[child] = self._explored(hparams[parent], 1.0, random)
        return Decision(copies=copies, hparams=changed)

    def _part(self, members: Sequence[int]) -> int:
        return min(math.ceil(self.share * len(members)), len(members) // 2)

    def _explored(self, values: Mapping[str, float], resample: float, random: np.random.Generator) -> dict[str, float]:
        found = {}
        for name, value in sorted(values.items()):
            power = random.choice([-1.0, 1.0]) if random.uniform() >= resample else random.uniform(-4, 4)
            least, most = self.bounds.get(name, (0.0, math.inf))
            found[name] = float(np.clip(value * self.factor**power, least, most))
        return found


def _same(some: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Whether values are equal up to the float32 rounding of the values on the devices."""
    return all(math.isclose(value, others[name], rel_tol=1e-6) for name, value in some.items())

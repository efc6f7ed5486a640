"""What becomes of the members of a population: successive halving, and population-based training.

Both decide from scores and hyperparameters alone, so that a population that is stopped and continued decides the same.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from gan_jax.sweep.population import Decision
from gan_jax.types import InvalidInputError

_TRIES = 20  # to be unlike others; in vain where bounds leave no room, or all values are 0


@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving: at rungs of `first`, `first * eta`, `first * eta**2`, ... iterations, one in `eta` goes on.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", arXiv:1502.07943,
    2015; the rungs are those of ASHA (Li et al., "A System for Massively Parallel Hyperparameter Tuning",
    arXiv:1810.05934, 2018), which decides without waiting for others; members of a population come to a rung together,
    so there is nobody to wait for.

    Attributes:
      first: iterations of the first rung.
      eta: of the members at a rung, the best `max(1, n // eta)` go on.
    """

    replaces_diverged: ClassVar = False
    first: int
    eta: int = 3

    def __post_init__(self) -> None:
        if self.first < 1 or self.eta < 2:
            raise InvalidInputError(f"first={self.first}, eta={self.eta}: expected first >= 1 and eta >= 2")

    def due(self, step: int) -> bool:
        """At a rung."""
        rung = self.first
        while rung < step:
            rung *= self.eta
        return rung == step

    def rungs(self, steps: int) -> list[int]:
        """Those below so many iterations."""
        return [step for step in (self.first * self.eta**i for i in range(64)) if step < steps]

    def decide(self, step: int, scores: Mapping[int, float], hparams: Mapping[int, Mapping[str, float]]) -> Decision:
        """Prunes all but the best; of equals those of lower id stay."""
        del step, hparams
        ranking = sorted(scores, key=lambda member: (-scores[member], member))
        return Decision(pruned=sorted(ranking[max(1, len(ranking) // self.eta) :]))


@dataclasses.dataclass(frozen=True)
class PopulationBased:
    """Population-based training: at intervals the worst members become copies of the best, with other hyperparameters.

    A copy takes networks, optimisers, averages and hyperparameters together, and keeps its own data order and noise.
    Then each of its hyperparameters is multiplied or divided by `factor`, or with probability `resample` by a power of
    it drawn uniformly from [-4, 4], and kept within `bounds`; 0 stays 0. Where all would be as its parent's or another
    copy's of that, they are drawn uniformly, again and again: with one seed for all, such members would do the same.
    Members that have diverged are replaced however many; members whose score is not finite are not copied if others are
    among the best.

    Jaderberg et al., "Population Based Training of Neural Networks", arXiv:1711.09846, 2017: truncation selection, with
    factors of 1.2 and 0.8. A factor and its inverse have no drift.

    Attributes:
      every: iterations between decisions.
      seed: of the draws.
      share: of the members that are replaced, and of those that are copied.
      factor: above 1.
      resample: probability, for each hyperparameter.
      bounds: least and most by name; without, a hyperparameter may become any positive number.
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
        """At every interval."""
        return step % self.every == 0

    def decide(self, step: int, scores: Mapping[int, float], hparams: Mapping[int, Mapping[str, float]]) -> Decision:
        """The worst become copies of some of the best."""
        if not scores:
            return Decision()
        ranking = sorted(scores, key=lambda member: (-scores[member], member))
        lost = sorted(hparams.keys() - scores.keys())
        there = [*ranking, *lost]
        worst = there[len(there) - max(self._part(there), len(lost)) :]
        best = ranking[: max(1, self._part(ranking))]
        best = [member for member in best if math.isfinite(scores[member])] or best
        random = np.random.default_rng([self.seed, step])
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
    """Up to the rounding of what is on the devices."""
    return all(math.isclose(value, others[name], rel_tol=1e-6) for name, value in some.items())

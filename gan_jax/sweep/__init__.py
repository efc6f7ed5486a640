"""Sweeps over hyperparameters: populations of runs in one compiled program, searches over them, and studies."""

from gan_jax.sweep.export import export
from gan_jax.sweep.logs import Outcome
from gan_jax.sweep.members import Member
from gan_jax.sweep.pictures import draw
from gan_jax.sweep.population import Decision, Search, train_population
from gan_jax.sweep.report import best, write_table
from gan_jax.sweep.search import Halving, PopulationBased

__all__ = [
    "Decision",
    "Halving",
    "Member",
    "Outcome",
    "PopulationBased",
    "Search",
    "best",
    "draw",
    "export",
    "train_population",
    "write_table",
]

"""Mode coverage on mixtures of Gaussians: every adversarial loss under every regulariser, and the update rules.

The data sets are VEEGAN's ring of 8 (radius 1, std 0.01) and grid of 25 (spacing 2, std 0.05; arXiv:1705.07761), with a
new batch in every iteration. `metrics.mixture_coverage` evaluates 2,500 samples of the averaged generator, and of the
raw one: the number of modes with a sample within three standard deviations, the share of such samples, and the KL
divergence of their histogram from equal shares. A Gaussian has 98.9% of its own samples within three standard
deviations.

All settings use the hyperparameters of `mixture_games.Setup`, with two published exceptions: the weight 0.1 of the
gradient penalty is that of WGAN-GP's toy experiments (arXiv:1704.00028), and unrolling looks 5 updates ahead
(arXiv:1611.02163). Only gamma of R1 and R2 depends on the scale of the data set (`--search` shows how it was found).
Every loss has one critic update per iteration, including the losses whose papers use five. Three games also run on a
longer budget (`mixture_games.LONG`).

The seeds of a setting train as one population: `jax.vmap` over states, each with its own data, in one program. A seed
whose parameters become non-finite counts as failed, with 0 modes and 0% high-quality samples; it does not affect the
other seeds. The intervals are 95% bootstrap percentiles of the mean over seeds.

python -m benchmarks.mixtures                    runs the settings missing in results/mixtures.jsonl, prints the table
python -m benchmarks.mixtures --long             runs only the three games on the longer budget
python -m benchmarks.mixtures --only=grid,r1+r2  runs the settings with these words; a kind (data, loss, regulariser or
                                                 rule) of which no word is named is not restricted
python -m benchmarks.mixtures --table            runs nothing: prints the table of the recorded results
python -m benchmarks.mixtures --write            runs nothing: writes docs/mixtures.md and docs/images/mixtures.png
python -m benchmarks.mixtures --search           tries other hyperparameters; appends to results/mixtures_search.jsonl
"""

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks import measure, mixtures_report
from benchmarks.mixture_games import (
    DATA,
    LONG,
    Line,
    Setting,
    Setup,
    all_settings,
    describe,
    evaluate,
    long_settings,
    scores,
    train,
)
from gan_jax.runtime import duration


def select(words: Sequence[str], settings: Sequence[Setting]) -> list[Setting]:
    """Returns the settings that match the words: for every kind (data, loss, ...) with a named word, one of those."""
    kinds = [{setting[i] for setting in settings} for i in range(len(Setting._fields))]
    unknown = set(words).difference(*kinds)
    if unknown:
        known = ", ".join(word for kind in kinds for word in sorted(kind))
        sys.exit(f"--only={','.join(sorted(unknown))}: expected some of {known}")
    named = [kind & set(words) or kind for kind in kinds]
    return [setting for setting in settings if all(word in kind for word, kind in zip(setting, named, strict=True))]


def _progress(message: str) -> None:
    """Overwrites the last progress message on a terminal; prints nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{message}\033[K", end="", file=sys.stderr, flush=True)


def run_all(settings: Sequence[Setting], setup: Setup) -> None:
    """Runs the settings that are not recorded with exactly this setup, and records a line for each."""
    there = {line["hash"] for line in measure.recorded("mixtures")}
    missing = [setting for setting in settings if describe(setting, setup)["hash"] not in there]
    print(f"{len(settings)} settings, {len(settings) - len(missing)} recorded before", flush=True)
    began = time.monotonic()
    for index, setting in enumerate(missing):
        line = evaluate(setting, setup, _progress)
        _progress("")
        measure.record("mixtures", line)
        jax.clear_caches()
        eta = (time.monotonic() - began) / (index + 1) * (len(missing) - index - 1)
        shown = f"modes {line['modes']}, high quality {line['high_quality']}, failed {line['failed']}"
        print(f"{index + 1}/{len(missing)} {setting}: {shown}, {line['seconds']} s, ETA {duration(eta)}", flush=True)


GAMMAS = {"ring": (0.002, 0.01, 0.05), "grid": (0.05, 0.2, 1.0)}
RATES = (0.5, 1.0, 2.0)  # factors of the setup's learning rate
SHAPES: tuple[dict[str, int], ...] = ({}, {"layers": 4}, {"layers": 5}, {"batch_size": 128}, {"width": 128})
SEARCH_SEED = 100  # not among the seeds of the tables


def search(setup: Setup) -> None:
    """Searches hyperparameters of the pairing loss with R1 and R2, with one seed.

    All combinations of gammas and learning rates train as one population, once for each of `SHAPES`.
    """
    rows: list[list[Any]] = [["data", "shape", "gamma", "learning rate", "modes", "high quality", "KL"]]
    for name, mixture in DATA.items():
        members = list(itertools.product(GAMMAS[name], (x * setup.learning_rate for x in RATES)))
        weights, rates = [gamma / 2 for gamma, _ in members], [rate for _, rate in members]
        for shape in SHAPES:
            shaped = dataclasses.replace(setup, **shape)
            population = train(
                Setting(name, "relativistic_pairing", "r1+r2"),
                shaped,
                [SEARCH_SEED] * len(members),
                {"r1_weight": weights, "r2_weight": weights, "learning_rate": rates},
                log=_progress,
            )
            found = scores(population.samples, mixture)
            line = {"data": name, "setup": dataclasses.asdict(shaped), "gammas_and_rates": members, **found}
            measure.record("mixtures_search", line)
            told = ", ".join(f"{key}={value}" for key, value in shape.items()) or "as in the table"
            shown = zip(members, *(found[key] for key in ("modes", "high_quality", "kl")), strict=True)
            rows += [[name, told, *member, modes, share, kl] for member, modes, share, kl in shown]
    print(measure.table(rows))


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark, or prints or writes its table."""
    parser = argparse.ArgumentParser("benchmarks.mixtures", description=__doc__, formatter_class=_Raw)
    parser.add_argument("--only", default="", help="comma-separated words that select settings")
    parser.add_argument("--long", action="store_true", help="run only the games on the longer budget")
    parser.add_argument("--table", action="store_true", help="run nothing: print the recorded results")
    parser.add_argument("--write", action="store_true", help="run nothing: write table and picture into docs/")
    parser.add_argument("--search", action="store_true", help="try other hyperparameters on the pairing loss")
    fields = [field.name for field in dataclasses.fields(Setup)]
    for name in fields:
        default = getattr(Setup, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help="hyperparameter of the setup")
    chosen = parser.parse_args(argv)
    setup = Setup(**{name: getattr(chosen, name) for name in fields})
    if chosen.search:
        search(setup)
        return
    words, longer = [word for word in chosen.only.split(",") if word], dataclasses.replace(setup, **LONG)
    settings = select(words, all_settings())
    if not (chosen.table or chosen.write):
        if not chosen.long:
            run_all(settings, setup)
        if chosen.long or not words:
            run_all(select(words, long_settings()), longer)
    short, long = _lines(settings, setup), _lines(long_settings(), longer)
    if chosen.write:
        mixtures_report.write(short, long)
    print(mixtures_report.table(short, long))


def _lines(settings: Sequence[Setting], setup: Setup) -> dict[Setting, Line]:
    hashes = {describe(setting, setup)["hash"]: setting for setting in settings}
    return {hashes[line["hash"]]: line for line in measure.recorded("mixtures") if line["hash"] in hashes}


class _Raw(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


if __name__ == "__main__":
    main(sys.argv[1:])

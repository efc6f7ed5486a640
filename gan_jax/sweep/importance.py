"""Pictures by Optuna: how much of the metric each key explains, and the metric over pairs of keys."""

import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from gan_jax.sweep.axes import are_numbers, is_log, save

Row = Mapping[str, Any]
_LEAST = 8  # trials with a value; with fewer the importances are noise
_SHOWN = 3  # most important keys in the contour plot


def draw(workdir: pathlib.Path, rows: Sequence[Row], keys: Sequence[str], metric: str, mode: str) -> list[pathlib.Path]:
    """Draws `importance.png` and `contour.png`, if Optuna is installed and there are enough trials.

    Args:
      workdir: directory of the pictures.
      rows: rows of trials with a value of the metric.
      keys: columns with the values that vary.
      metric: metric that the pictures explain.
      mode: whether the `min` or the `max` of it is best.

    Returns:
      The paths of the pictures.

    References:
      Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014 (fANOVA,
      which Optuna computes).
    """
    rows = [row for row in rows if row["status"] == "done" and all(key in row for key in keys)]
    varied = [key for key in keys if len({str(row[key]) for row in rows}) > 1]
    if len(rows) < _LEAST or len(varied) < 2:
        return []
    try:
        import optuna  # noqa: PLC0415 - an extra
    except ImportError:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Optuna, about functions that it may still change
        study = _study(optuna, rows, varied, metric, mode)
        shares = optuna.importance.get_param_importances(study)
        made = [_bars(workdir / "importance.png", shares, len(rows), metric)]
        made.append(_contour(optuna, workdir / "contour.png", study, list(shares)[:_SHOWN], metric))
    return made


def _study(optuna: Any, rows: Sequence[Row], keys: Sequence[str], metric: str, mode: str) -> Any:
    """Makes a study in memory of the rows, whatever engine has trained them."""

    def distribution(values: Sequence[Any]) -> Any:
        if not are_numbers(values):
            return optuna.distributions.CategoricalDistribution(sorted({str(x) for x in values}))
        return optuna.distributions.FloatDistribution(min(values), max(values), log=is_log(values))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {key: distribution([row[key] for row in rows]) for key in keys}
    study = optuna.create_study(direction="minimize" if mode == "min" else "maximize")
    for row in rows:
        params = {key: str(row[key]) if hasattr(space, "choices") else float(row[key]) for key, space in spaces.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=float(row[metric])))
    return study


def _bars(path: pathlib.Path, shares: Mapping[str, float], trials: int, metric: str) -> pathlib.Path:
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(8, 1.2 + 0.45 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(list(shares), list(shares.values()), color="C0")
    axes.bar_label(bars, [f"{share:.0%}" for share in shares.values()], padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(f"share of the variance of {metric} that a key explains (fANOVA of {trials} trials)")
    return save(figure, path)


def _contour(optuna: Any, path: pathlib.Path, study: Any, keys: Sequence[str], metric: str) -> pathlib.Path:
    """Draws Optuna's contour plot. It changes the style of all later figures, and leaves one of pyplot open."""
    from matplotlib import pyplot, rc_context  # noqa: PLC0415 - slow to import

    with rc_context():
        return _contour_figure(optuna, pyplot, path, study, keys, metric)


def _contour_figure(
    optuna: Any, pyplot: Any, path: pathlib.Path, study: Any, keys: Sequence[str], metric: str
) -> pathlib.Path:
    axes = optuna.visualization.matplotlib.plot_contour(study, params=list(keys), target_name=metric)
    figure = (axes if len(keys) == 2 else axes.ravel()[0]).figure
    figure.set_size_inches(3.5 + 2.5 * len(keys), 1.5 + 2.2 * len(keys))
    figure.suptitle(f"{metric} over pairs of the {len(keys)} most important keys; dots are trials", fontsize=11)
    if len(keys) == 2:
        axes.set_title("")
    try:
        return save(figure, path)
    finally:
        pyplot.close(figure)

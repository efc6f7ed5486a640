"""Curves of healthy training for each adversarial loss: logits and gradient norms on the ring of 8 Gaussians.

Trains the same small game under every loss of the library. Writes one JSON line per loss (settings, versions, commit,
the curves, and the mode coverage of the final samples), prints a table and plots the curves.

python -m benchmarks.loss_health                        trains all losses, about ten minutes on two cores
python -m benchmarks.loss_health --only=hinge,minimax   trains some of them, and replaces their lines
python -m benchmarks.loss_health --plot                 trains nothing: plots the recorded lines
"""

import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks.zoo import all_losses, positive
from gan_jax import core, data, gans, losses, nets, runtime
from gan_jax.runtime.environment import versions

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results" / "loss_health.jsonl"
PICTURE = HERE.parent / "docs" / "images" / "loss_health.png"
BATCH, WIDTH, R1, PENALTY = 256, 128, 0.02, 1.0

_STEPS = flags.DEFINE_integer("steps", 10_000, "iterations for each loss", lower_bound=1000)
_ONLY = flags.DEFINE_list("only", [], "names of the losses to train; all by default")
_PLOT = flags.DEFINE_bool("plot", False, "train nothing: plot the recorded lines")


def build(name: str, loss: losses.GANLoss, steps: int) -> runtime.Experiment:
    """Makes the experiment for a loss: the ring, with the gradient penalty for `wasserstein` and R1 for the others."""
    mixture, hidden = data.ring(), (WIDTH,) * 3
    critic = nets.from_linen(nets.MLPDiscriminator(hidden))
    adam = core.adam(1e-3, 0.0, 0.99)
    game = gans.adversarial(
        nets.from_linen(nets.MLPGenerator((2,), hidden, bounded=False)),
        positive(critic) if name == "energy_based" else critic,
        core.normal(2),
        loss=loss,
        penalties=(gans.gradient_penalty(PENALTY) if name == "wasserstein" else gans.r1(R1),),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        ema_halflife_images=20_000.0,
    )
    every = steps // 50
    return runtime.Experiment(
        game=game, source=lambda: mixture, preview=runtime.scatter, seed=0, batch_size=BATCH, steps=every * 50,
        steps_per_dispatch=min(every, 100), report_every=every, sample_every=0, checkpoint_every=every * 50,
    )  # fmt: skip


def measure(name: str, loss: losses.GANLoss, steps: int) -> dict[str, Any]:
    """Trains under one loss, and returns its line for the results."""
    experiment, mixture = build(name, loss, steps), data.ring()
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder)
        began = time.monotonic()
        result = runtime.train(experiment, workdir, log=lambda message: None)
        seconds = time.monotonic() - began
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        line: dict[str, Any] = {"loss": name, "status": result.status, "steps": result.step, "seconds": round(seconds)}
        if result.status == "done":
            restored = runtime.Checkpointer(workdir / "checkpoints", keep_last=1, read_only=True)
            mesh = runtime.make_mesh(jax.local_devices()[:1])
            with jax.set_mesh(mesh):
                start = runtime.build_start(experiment, mixture.spec, mesh)
                found = restored.restore_latest(start.abstract, lambda message: None)
            restored.close()
            assert found is not None
            samples = runtime.sample_grid(experiment, found[1]["state"], jax.random.key(1), 5000)
            distance = np.linalg.norm(samples[:, None] - mixture.centers, axis=-1)
            good = distance.min(1) < 3 * mixture.std
            line["high_quality"] = round(float(good.mean()), 4)
            line["modes"] = int((np.bincount(distance.argmin(1)[good], minlength=8) >= 20).sum())
    line["curves"] = {
        key: [float(f"{entry[key]:.4g}") for entry in lines]
        for key in (lines[0] if lines else {})
        if key not in ("step", "images_per_second")
    }
    return line


def plot(lines: Sequence[dict[str, Any]]) -> None:
    """Plots logits and, below them, gradient norms, in one panel each per loss."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    columns, rows = 4, -(-len(lines) // 4)
    figure = Figure(figsize=(4 * columns, 3.6 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_visible(False)
    for index, line in enumerate(lines):
        top, bottom = (axes[2 * (index // columns) + i][index % columns] for i in (0, 1))
        images = np.array(line["curves"].get("images", [])) / 1e6
        for axis, pair in ((top, ("real_logits", "fake_logits")), (bottom, ("gradient_norm", "gradient_norm"))):
            axis.set_visible(True)
            players = ("discriminator", "discriminator") if axis is top else ("discriminator", "generator")
            for player, metric, colour in zip(players, pair, ("tab:green", "tab:red"), strict=True):
                values = line["curves"].get(f"{player}/{metric}", [])
                axis.plot(images, values, color=colour, label=metric if axis is top else player, linewidth=1.2)
            axis.tick_params(labelsize=8)
        bottom.set_yscale("log")
        ending = f"{line['modes']}/8 modes, {line['high_quality']:.0%} good" if "modes" in line else line["status"]
        top.set_title(f"{line['loss']}: {ending}", fontsize=9)
        if index == 0:
            top.legend(fontsize=7, title="mean logits", title_fontsize=7)
            bottom.legend(fontsize=7, title="gradient norms", title_fontsize=7)
        bottom.set_xlabel("million images", fontsize=8)
    figure.savefig(PICTURE, dpi=70)
    print(f"curves in {PICTURE.relative_to(HERE.parent)}")


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Makes a table of medians over the second half of training, in Markdown."""
    keys = [f"discriminator/{name}" for name in ("real_logits", "fake_logits", "gradient_norm")]
    rows = [
        "| loss | mean D(real) | mean D(fake) | gradient norm, D | gradient norm, G | modes | good samples |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        if line["status"] != "done":
            rows.append(f"| `{line['loss']}` | {line['status']} after {line['steps']:,} iterations | | | | | |")
            continue
        medians = [np.median(line["curves"][key][25:]) for key in (*keys, "generator/gradient_norm")]
        values = " | ".join(f"{value:.2g}" for value in medians)
        rows.append(f"| `{line['loss']}` | {values} | {line['modes']} | {line['high_quality']:.0%} |")
    return "\n".join(rows)


def main(argv: Sequence[str]) -> None:
    """Trains the losses, prints the table and plots the curves."""
    del argv
    logging.set_verbosity(logging.ERROR)  # Orbax logs verbosely
    chosen = all_losses()
    unknown = set(_ONLY.value) - set(chosen)
    if unknown:
        sys.exit(f"--only={','.join(sorted(unknown))}: expected some of {', '.join(chosen)}")
    recorded = {}
    if RESULTS.exists():
        recorded = {line["loss"]: line for line in map(json.loads, RESULTS.read_text().splitlines())}
    RESULTS.parent.mkdir(exist_ok=True)
    wanted = [] if _PLOT.value else (_ONLY.value or list(chosen))
    began = time.monotonic()
    for index, name in enumerate(wanted):
        line = measure(name, chosen[name], _STEPS.value)
        settings = {"batch_size": BATCH, "width": WIDTH, "r1_gamma": R1, "gradient_penalty_of_wasserstein": PENALTY}
        command = " ".join(["python -m benchmarks.loss_health", *sys.argv[1:]])
        recorded[name] = {**line, "settings": settings, "command": command, "versions": versions()}
        RESULTS.write_text("".join(json.dumps(recorded[key]) + "\n" for key in chosen if key in recorded))
        eta = (time.monotonic() - began) / (index + 1) * (len(wanted) - index - 1)
        shown = {key: line.get(key) for key in ("status", "high_quality", "modes", "seconds")}
        print(f"{index + 1}/{len(wanted)} {name}: {shown}  ETA {runtime.duration(eta)}", flush=True)
    lines = [recorded[name] for name in chosen if name in recorded]
    print(table(lines))
    plot(lines)


if __name__ == "__main__":
    app.run(main)

"""Image translation with known truth: pix2pix against its L1 term alone, and CycleGAN and CUT on turned digits.

`colour`: grey CIFAR-10 images are coloured by `pix2pix_cifar10_colour`, by the whole game and by the L1 distance alone;
the table has the metrics of held-out images. `digits`: digits are inverted and coloured, and turned or left upright.
The share of digits kept is how many translations of test digits a classifier of the target domain reads as the source's
digit. It stands beside the sources themselves, and translations by the network before training.

python -m benchmarks.translation --data_dir=DIR           runs what is not recorded yet; appends to results/
python -m benchmarks.translation --data_dir=DIR --cases=colour --seeds=1 --steps=100   a part of it
python -m benchmarks.translation --table                  runs nothing: prints the recorded results
python -m benchmarks.translation --write                  runs nothing: writes the tables into docs/translation.md
"""

import functools
import pathlib
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.measure import RESULTS, put, record, recorded, spread, table
from gan_jax import data, host, metrics, runs, runtime
from gan_jax.eval import Extractor, extract, load_classifier, save_classifier, train_classifier
from gan_jax.runs.exported import Exported
from gan_jax.runtime.environment import cache_directory

_DATA = flags.DEFINE_string("data_dir", "", "directory of the TFDS data sets mnist and cifar10_jpeg")
_CASES = flags.DEFINE_list("cases", ["colour", "cyclegan", "cut"], "what to run: colour, cyclegan, cut")
_SEEDS = flags.DEFINE_integer("seeds", 5, "number of seeds")
_STEPS = flags.DEFINE_integer("steps", 0, "iterations of each run; 0 for those of the benchmark")
_TURNS = flags.DEFINE_multi_integer("turns", [0, 1], "times that digits are turned by 90 degrees")
_PICTURES = flags.DEFINE_string("pictures", "", "directory for pictures of seed 0: source, output, target")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write them into docs/translation.md")

_TEST = 1000  # held-out images
_JUDGE = 8  # width of the classifiers
_SHOWN = 24  # images in a picture
# Smaller networks and shorter runs than the configs', so that the benchmark ends on two cores.
_SMALL: dict[str, dict[str, Any]] = {
    "colour": {"width": 12, "critic_width": 12, "batch_size": 16, "steps": 600, "keep_brightness": True},
    "cyclegan": {"width": 8, "blocks": 3, "batch_size": 8, "steps": 600},
    "cut": {"width": 8, "blocks": 5, "batch_size": 8, "steps": 600, "decay": True},
}
_CONFIG = {"colour": "pix2pix_cifar10_colour", "cyclegan": "cyclegan_mnist", "cut": "cut_mnist"}


@functools.cache
def judge(case: str, turns: int) -> Extractor:
    """Trains a classifier of the target domain, on images that no test uses, or reads it if that was done before."""
    name = "cifar10_jpeg" if case == "colour" else "mnist"
    kept = cache_directory() / "benchmarks" / f"translation_{name}_{turns}_{_JUDGE}.npz"
    if kept.exists():
        return load_classifier(kept)
    source: data.Source = data.tfds_images(name, split="train[:20000]", data_dir=_DATA.value, labels=True)
    if case != "colour":
        source = data.renamed(data.turned_digit_pairs(source, turns=turns), real="b", label="label")
    held = source.read(np.arange(len(source)))
    images, labels, count = held["real"], held["label"], len(source) - _TEST
    made = train_classifier(
        images[:count], labels[:count], (images[count:], labels[count:]), num_classes=10, width=_JUDGE, log=print
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_classifier(kept, made)
    return made


def features(network: Extractor, images: np.ndarray) -> Any:
    """Returns a classifier's outputs for uint8 images."""
    mesh = runtime.make_mesh(jax.devices()[:1])
    return extract({"it": network}, [images], len(images), mesh=mesh, batch_size=100)["it"]


def colourfulness(images: np.ndarray) -> float:
    """Returns the mean colourfulness of images in [0, 255], M3 of Hasler and Süsstrunk, SPIE 5007, 2003."""
    red, green, blue = np.moveaxis(images.astype(np.float64), -1, 0)
    first, second = red - green, (red + green) / 2 - blue
    spreads = np.hypot(first.std((1, 2)), second.std((1, 2)))
    return float(np.mean(spreads + 0.3 * np.hypot(first.mean((1, 2)), second.mean((1, 2)))))


def translated(experiment: runtime.Experiment, state: Any, inputs: np.ndarray) -> np.ndarray:
    """Translates images in parts, by the function of the game."""
    run = jax.jit(experiment.game.functions["translate"])
    parts = [run(state, jax.random.key(low), inputs[low : low + 100]) for low in range(0, len(inputs), 100)]
    return np.concatenate([np.asarray(part) for part in parts])


def values_of(case: str, turns: int, outputs: np.ndarray, examples: dict[str, np.ndarray]) -> dict[str, Any]:
    """Computes the metrics of outputs in [-1, 1] with their targets and the labels of the sources."""
    target, pixels = examples["target"], host.to_uint8(outputs)
    network = judge(case, turns)
    found: dict[str, Any] = {"l1": float(np.mean(np.abs(outputs - target)))}
    found["accuracy_of_judge"] = network.record["accuracy"]
    mine = features(network, pixels)
    if case == "colour":
        real = features(network, host.to_uint8(target))
        distance = metrics.frechet_distance(metrics.moments(real.features), metrics.moments(mine.features))
        return found | {
            "psnr": float(jnp.mean(metrics.psnr(jnp.asarray(outputs), jnp.asarray(target)))),
            "ssim": float(jnp.mean(metrics.ssim(jnp.asarray(outputs), jnp.asarray(target)))),
            "fcd": float(distance),
            "colourfulness": colourfulness(pixels),
        }
    read, label = np.argmax(mine.logits, axis=-1), examples["label"]
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (label, read), 1)
    return found | {"kept": float(np.mean(read == label)), "confusion": confusion.tolist()}


def examples_of(case: str, turns: int) -> dict[str, np.ndarray]:
    """Reads the held-out images: inputs and targets in [-1, 1], and labels."""
    name = "cifar10_jpeg" if case == "colour" else "mnist"
    source = data.tfds_images(name, split=f"test[:{_TEST}]", data_dir=_DATA.value, labels=True)
    pairs = (
        data.made_pairs(source, data.Colourisation())
        if case == "colour"
        else data.turned_digit_pairs(source, turns=turns)
    )
    held = pairs.read(np.arange(_TEST))
    shown = {name: np.asarray(data.to_model(name, held[name])) for name in ("a", "b")}
    return {"inputs": shown["a"], "target": shown["b"], "label": held["label"]}


def measure(case: str, variant: str, turns: int, seed: int) -> None:
    """Trains one run and records its metrics; the state is that of the end."""
    values = _SMALL[case] | {"seed": seed, "sample_every": 0, "steps_per_dispatch": 10}
    values |= {"steps": _STEPS.value} if _STEPS.value else {}
    values |= {"adversarial_weight": 0.0} if variant == "L1 alone" else {}
    values |= {} if case == "colour" else {"turns": turns, "metrics": "", "evaluate_every": 0}
    values |= {"report_every": 100, "checkpoint_every": values["steps"]}
    experiment = runs.build(_CONFIG[case], data_dir=_DATA.value, **values)
    examples, began = examples_of(case, turns), time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        ended = runtime.train(experiment, directory, log=lambda message: None)
        if ended.step != values["steps"]:  # a signal stopped it
            raise SystemExit(f"{case}, {variant}, seed {seed}: stopped at step {ended.step}; nothing is recorded")
        trained = runs.load(directory)
        assert not isinstance(trained, Exported)
        state = trained.state
    seconds = time.monotonic() - began
    outputs = translated(experiment, state, examples["inputs"])
    facts = {"case": case, "variant": variant, "turns": turns, "seed": seed, "steps": values["steps"]}
    facts |= {"config": {key: values[key] for key in _SMALL[case]}, "seconds": round(seconds)}
    record("translation", facts | {"values": values_of(case, turns, outputs, examples)})
    print({**facts, "values": {k: v for k, v in recorded("translation")[-1]["values"].items() if k != "confusion"}})
    if _PICTURES.value and seed == 0:
        columns = [np.broadcast_to(examples["inputs"], examples["target"].shape), outputs, examples["target"]]
        shown = np.concatenate([x[:_SHOWN] for x in columns], axis=2)
        name = f"{case}_{variant}_{turns}.png".replace(" ", "_")
        runtime.image_grid(shown, 4).save(pathlib.Path(_PICTURES.value) / name)


def baselines(case: str, turns: int) -> None:
    """Records the metrics of the sources themselves, and of translations by networks before training."""
    examples = examples_of(case, turns)
    source = np.broadcast_to(examples["inputs"], examples["target"].shape)
    record("translation", _facts(case, "source", turns) | {"values": values_of(case, turns, source, examples)})
    if case == "colour":
        truth = {"colourfulness": colourfulness(host.to_uint8(examples["target"]))}
        record("translation", _facts(case, "target", turns) | {"values": truth})
        return
    experiment = runs.build(_CONFIG[case], data_dir=_DATA.value, turns=turns, **_SMALL[case])
    batch = dict.fromkeys("ab", examples["inputs"][:8])
    state = jax.jit(experiment.game.init)(jax.random.key(0), batch)
    outputs = translated(experiment, state, examples["inputs"])
    record("translation", _facts(case, "untrained", turns) | {"values": values_of(case, turns, outputs, examples)})


def _facts(case: str, variant: str, turns: int) -> dict[str, Any]:
    return {"case": case, "variant": variant, "turns": turns, "seed": -1, "steps": 0}


def key_of(line: dict[str, Any]) -> tuple[Any, ...]:
    """Returns what tells recorded lines apart; a later line with the same key replaces an earlier one."""
    return (_row(line), *(line[name] for name in ("case", "turns", "seed", "steps")))


def _row(line: dict[str, Any]) -> str:
    """Names a variant; in the first runs, those of `colour` chose the brightness too, and the rate of `cut` stayed."""
    if not line["steps"]:
        return str(line["variant"])
    free = line["case"] == "colour" and not line["config"].get("keep_brightness")
    constant = line["case"] == "cut" and not line["config"].get("decay")
    return line["variant"] + ", brightness free" * free + ", constant rate" * constant


def page() -> str:
    """Makes the tables of the recorded results, in Markdown."""
    lines = {key_of(line): line for line in recorded("translation")}
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines.values():
        groups.setdefault((line["case"], line["turns"], _row(line), line["steps"]), []).append(line)
    names = ["psnr", "ssim", "l1", "fcd", "colourfulness"]
    colour: list[list[Any]] = [["images", "iterations", "seeds", *names]]
    digits: list[list[Any]] = [["translation", "digits of b", "iterations", "seeds", "digits kept", "l1", "least"]]
    for (case, turns, variant, steps), found in sorted(groups.items()):
        values = [line["values"] for line in found]
        count = f"{len(found)}" if steps else ""
        if case == "colour":
            colour.append(
                [variant, f"{steps:,}", count, *(spread([x[n] for x in values if n in x], ".4g") for n in names)]
            )
            continue
        kept = spread([100 * x["kept"] for x in values], ".1f")
        least = f"{100 * min(x['kept'] for x in values):.1f}%" if steps else ""
        where = "turned" if turns else "upright"
        shares = [variant if steps else f"{variant} ({case})", where, f"{steps:,}", count, f"{kept}%"]
        digits.append([*shares, spread([x["l1"] for x in values], ".3f"), least])
    return "\n\n".join(table(rows) for rows in (colour, digits) if len(rows) > 1)


def main(argv: list[str]) -> None:
    """Runs the benchmark, or prints or writes its tables."""
    del argv
    if _TABLE.value or _WRITE.value:
        print(page())
        if _WRITE.value:
            put(RESULTS.parents[1] / "docs" / "translation.md", "benchmarks.translation", page())
        return
    done = {key_of(line) for line in recorded("translation")}
    for seed in range(-1, _SEEDS.value):  # all variants of a seed in turn; before them what needs no training
        for case in _CASES.value:
            variants = ("pix2pix", "L1 alone") if case == "colour" else (case,)
            for turns in (0,) if case == "colour" else _TURNS.value:
                if seed < 0 and key_of(_facts(case, "source", turns)) not in done:
                    baselines(case, turns)
                for variant in variants if seed >= 0 else ():
                    if (variant, case, turns, seed, _STEPS.value or _SMALL[case]["steps"]) not in done:
                        measure(case, variant, turns, seed)


if __name__ == "__main__":
    app.run(main)

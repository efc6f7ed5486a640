"""The model card of an exported model: how to use it in plain JAX, how good it is, and what it must not be used for."""

import json
from collections.abc import Mapping
from typing import Any

from gan_jax.runs.programs import CODES, INPUTS, KEY, LABEL, LATENTS_OF_PRIOR, LIKE, SAMPLE, TRUNCATION, Z

_MEANING = {
    Z: "latents",
    INPUTS: "what is mapped; images are from -1 to 1",
    CODES: "codes, as `encode` returns them",
    LABEL: "class",
    TRUNCATION: "from 0, the average sample, to 1, no truncation",
    KEY: "key of the noise, `jax.random.key_data(jax.random.key(0))`",
    LIKE: "any numbers; only their count matters",
}
_DRAWN = {
    "normal": "jax.random.normal(key, (16, {dim}))",
    "uniform": "jax.random.uniform(key, (16, {dim}), minval=-1.0, maxval=1.0)",
}
_TASKS = {SAMPLE: "unconditional-image-generation", "translate": "image-to-image"}
_CAUTION = """The model imitates its training data, with their gaps and biases, and can reproduce single examples.
Nobody has examined it for these. Do not use it

- to deceive: to present its output as photographs, recordings or evidence, or to imitate a person;
- for decisions about people, or as measurements: for a diagnosis, an identification, or science that
  takes its output for observed data;
- where the licence or the consent of its training data does not reach."""


def text(record: Mapping[str, Any], name: str, picture: str | None = None) -> str:
    """Writes the model card of an exported model.

    Args:
      record: content of its `config.json`.
      name: name of the model.
      picture: name of the file with samples; None without one.

    Returns:
      The card, in Markdown with a header of YAML, as model hubs read it.
    """
    sections = [
        _header(record),
        f"# {name}",
        _about(record),
        *([f"![Samples]({picture})"] if picture else []),
        "## How to use it",
        "With `pip install jax flatbuffers`, in this folder, without gan_jax:",
        f"```python\n{usage(record)}\n```",
        _with_gan_jax(record),
        _table(record),
        "`model.safetensors` has the weights by name, for programs of your own.",
        "## How good it is",
        _metrics(record),
        "## Data",
        f"```text\n{record['data']}\n```",
        f"Licence of the weights: {record['license']}. The data have a licence of their own.",
        "## What it must not be used for",
        _CAUTION,
        "## Training",
        f"`{record['config_file']}` with these values:",
        f"```json\n{json.dumps(record['config'], indent=2)}\n```",
        f"State of step {record['step']:,}, sha256 `{record['state_sha256']}`.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _header(record: Mapping[str, Any]) -> str:
    tags = ["gan", "jax", "stablehlo"]
    lines = ["---", "library_name: gan_jax", f"license: {json.dumps(record['license'])}"]
    tasks = [_TASKS[name] for name in record["functions"] if name in _TASKS]
    mapping = "translate" in record["functions"] or INPUTS in record["functions"].get(SAMPLE, {}).get("inputs", ())
    if tasks:
        lines.append(f"pipeline_tag: {_TASKS['translate'] if mapping else tasks[0]}")
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _about(record: Mapping[str, Any]) -> str:
    data = record["data"].splitlines()[0].partition(":")[0]
    weights = "the moving average of the weights" if record["weights"] == "ema" else "the weights"
    kind = "" if record["num_classes"] is None else f", conditional on {record['num_classes']} classes"
    return (
        f"A generative model trained on {data}{kind}, exported by gan_jax "
        f"{record['versions'].get('gan_jax', '')}: {weights} after {record['step']:,} iterations, "
        f"{record['images']:,} images. The programs run on {', '.join(record['platforms'])}, with "
        + ("batches of any size." if record["batch"] is None else f"batches of {record['batch']}.")
    )


def usage(record: Mapping[str, Any]) -> str:
    """Returns the lines of plain JAX that use the first function of a model, as the card shows them."""
    name = next(iter(record["functions"]))
    about, count = record["functions"][name], record["batch"] or 16
    call = "generator" if name == SAMPLE else name
    lines = ["from pathlib import Path", "", "import jax", "from jax import export, numpy as jnp", ""]
    lines.append(f'{call} = export.deserialize(bytearray(Path("{about["file"]}").read_bytes()))')
    key = "key = jax.random.split(jax.random.key(0), 3)[0]  # as `gan-jax sample --seed=0` does"
    values = {
        LABEL: f"jnp.arange({count}) % {record['num_classes']}",
        TRUNCATION: "jnp.float32(1)",
        KEY: "jax.random.key_data(jax.random.key(0))",
    }
    if Z in about["inputs"] and record["prior"]:
        drawn = _DRAWN[record["prior"]["kind"]].format(dim=record["prior"]["dim"]).replace("16", str(count), 1)
        lines += [key, f"z = {drawn}"]
    elif Z in about["inputs"] and LATENTS_OF_PRIOR in record["functions"]:
        file = record["functions"][LATENTS_OF_PRIOR]["file"]
        lines += [
            key,
            f'latents = export.deserialize(bytearray(Path("{file}").read_bytes()))',
            f"z = latents.call(jax.random.key_data(key), jnp.arange({count}))",
        ]
    else:
        shape = about["shapes"][about["inputs"][0]]
        lines.append(f"{about['inputs'][0]} = ...  # {shape}")
    arguments = ", ".join(values.get(x, x) for x in about["inputs"])
    return "\n".join([*lines, f"images = {call}.call({arguments})  # {about['output']}, from -1 to 1"])


def _with_gan_jax(record: Mapping[str, Any]) -> str:
    call = "sample(64)" if SAMPLE in record["functions"] else f'call("{next(iter(record["functions"]))}", inputs)'
    return f"With gan_jax: `gan_jax.load(folder).{call}`. It runs no code of the folder."


def _table(record: Mapping[str, Any]) -> str:
    rows = ["| file | takes | returns |", "|---|---|---|"]
    for about in record["functions"].values():
        takes = "; ".join(f"`{x}`: {_MEANING[x]}, `{_plain(about['shapes'][x])}`" for x in about["inputs"])
        rows.append(f"| `{about['file']}` | {takes} | `{_plain(about['output'])}` |")
    return "\n".join(rows)


def _plain(shape: Any) -> str:
    return shape if isinstance(shape, str) else json.dumps(shape).replace('"', "")


def _metrics(record: Mapping[str, Any]) -> str:
    if not record["metrics"]:
        return "Not measured. `gan-jax evaluate` on the run, before the export, puts metrics with their protocols here."
    rows = ["| metric | value | samples | reference | network | other |", "|---|---|---|---|---|---|"]
    for line in record["metrics"]:
        protocols = line["protocol"]["metrics"]
        shared = {key: x for key, x in line["protocol"].items() if key != "metrics" and x not in (None, "")}
        other = ", ".join(f"{key} {x}" for key, x in shared.items())
        for name, value in line["metrics"].items():
            about = protocols[max((key for key in protocols if name.startswith(key)), key=len)]
            network = about.get("network") or {}
            seen = " ".join(str(network[key]) for key in ("name", "resize", "weights_sha256") if network.get(key))
            told = (about.get("samples", ""), about.get("reference", ""), seen, other)
            rows.append(f"| {name} | {value:.5g} | {' | '.join(map(str, told))} |")
    rows += ["", "Values of other protocols do not compare with these; `config.json` has all of each protocol."]
    return "\n".join(rows)

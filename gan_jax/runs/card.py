"""The model card of an exported model: how to use it in plain JAX, how good it is, and what it must not be used for."""

import json
from collections.abc import Mapping
from typing import Any

from gan_jax.runs.programs import (
    CODES,
    DECODE,
    ENCODE,
    INPUTS,
    KEY,
    LABEL,
    LATENTS_OF_PRIOR,
    LIKE,
    SAMPLE,
    TRUNCATION,
    Z,
)

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
        *([f"![Samples]({picture})", _caption(record)] if picture else []),
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
    if tasks:
        lines.append(f"pipeline_tag: {_TASKS['translate'] if _maps(record) else tasks[0]}")
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _maps(record: Mapping[str, Any]) -> bool:
    """Whether the model has no latents: all its functions map data."""
    return Z not in record["functions"].get(SAMPLE, {}).get("inputs", ())


def _caption(record: Mapping[str, Any]) -> str:
    if _maps(record):
        return "*What is mapped, what the model makes of it, and what is wanted where that is known.*"
    output = record["functions"].get(SAMPLE, {}).get("output", "")
    clips = isinstance(output, str) and output.count(",") == 4
    return "*Clips, one in each row, frame by frame.*" if clips else ""


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
    """Returns the lines of plain JAX that use the main function of a model, as the card shows them."""
    name, count = _first(record), record["batch"] or 16
    call = "generator" if name == SAMPLE else name
    given = _given(record, name, count)
    lines = ["from pathlib import Path", "", "import jax", "from jax import export, numpy as jnp", ""]
    lines += [_program(record, name, call), *given.values()]
    if name == ENCODE and DECODE in record["functions"]:
        lines += [_call("codes", record, name, call, given), _program(record, DECODE, DECODE)]
        name, call = DECODE, DECODE
    return "\n".join([*lines, _call("codes" if name == ENCODE else "images", record, name, call, given)])


def _first(record: Mapping[str, Any]) -> str:
    """Returns the main function: `sample`, or what a model without latents is made for."""
    functions = record["functions"]
    codes = (ENCODE,) if DECODE in functions else ()
    mapping = [name for name in ("translate", *codes) if name in functions and _maps(record)]
    return next(iter([*mapping, *functions]))


def _program(record: Mapping[str, Any], name: str, call: str) -> str:
    return f'{call} = export.deserialize(bytearray(Path("{record["functions"][name]["file"]}").read_bytes()))'


def _call(result: str, record: Mapping[str, Any], name: str, call: str, given: Mapping[str, str]) -> str:
    about, count = record["functions"][name], record["batch"] or 16
    values = {LABEL: f"jnp.arange({count}) % {record['num_classes']}", TRUNCATION: "jnp.float32(1)"}
    noise = "noise" if KEY in given else "jax.random.key_data(jax.random.key(0))"
    arguments = ", ".join((values | {KEY: noise}).get(x, x) for x in about["inputs"])
    images = isinstance(about["output"], str) and result == "images"
    return f"{result} = {call}.call({arguments})" + (f"  # {about['output']}, from -1 to 1" if images else "")


def _given(record: Mapping[str, Any], name: str, count: int) -> dict[str, str]:
    """Returns the lines that make the inputs of a function, by what they make."""
    about = record["functions"][name]
    noise = {KEY: "noise = jax.random.key_data(jax.random.key(0))"} if KEY in about["inputs"] else {}
    if Z not in about["inputs"]:
        first = about["inputs"][0]
        return {first: f"{first} = {_zeros(about['shapes'][first], count)}  # put yours here"} | noise
    key = "key = jax.random.split(jax.random.key(0), 3)[0]  # as `gan-jax sample --seed=0` does"
    if record["prior"]:
        drawn = _DRAWN[record["prior"]["kind"]].format(dim=record["prior"]["dim"]).replace("16", str(count), 1)
        return {"seed": key, Z: f"z = {drawn}"} | noise
    drawn = f"z = latents.call(jax.random.key_data(key), jnp.arange({count}))"
    return {"latents": _program(record, LATENTS_OF_PRIOR, "latents"), "seed": key, Z: drawn} | noise


def _zeros(shape: Any, count: int) -> str:
    """Returns the expression of zeros of a shape as the record has it: a text, or texts by name."""
    if not isinstance(shape, str):
        return "{" + ", ".join(f"{key!r}: {_zeros(x, count)}" for key, x in shape.items()) + "}"
    dtype, _, sizes = shape.rstrip("]").partition("[")
    sizes = sizes.replace("b", str(count), 1)
    return f"jnp.zeros(({sizes}), jnp.{dtype})"


def _with_gan_jax(record: Mapping[str, Any]) -> str:
    name = _first(record)
    key = ", key=noise" if KEY in record["functions"][name]["inputs"] else ""
    call = f'call("{name}", inputs{key})' if _maps(record) else "sample(64)"
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

"""The sweep command, as a user runs it."""

import csv
import importlib.util
import json
import pathlib

import pytest

from gan_jax.sweep import space as spaces
from gan_jax.sweep import trials
from gan_jax.types import InvalidInputError
from tests.processes import ROOT, finish, result, run, start, when

RING = str(ROOT / "experiments" / "configs" / "ring.py")
FLAGS = (
    f"--config={RING}",
    "--config.width=16",
    "--config.steps=400",
    "--config.steps_per_dispatch=20",
    "--config.report_every=40",
    "--config.checkpoint_every=40",
    "--config.sample_every=0",
    "--config.metrics=mixture",
    "--config.evaluate_every=40",
    "--config.best_metric=eval/mixture_kl",
)
SPACE = "--space=learning_rate=5e-4,2e-3;seed=0,1"


def table(workdir):
    with (workdir / "results.csv").open() as file:
        return list(csv.DictReader(file))


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


@pytest.mark.long
@pytest.mark.xdist_group("sweep")
def test_killed_and_continued_a_search_ends_the_same_and_its_best_is_a_run(tmp_path):
    halving = (*FLAGS, SPACE, "--search=halving", "--eta=2", f"--first_rung={120 * 256}")
    whole = run("sweep", f"--workdir={tmp_path / 'whole'}", *halving, "--export=none")
    assert "config.learning_rate sets the hyperparameters discriminator/learning_rate, generator/learning_rate" in whole
    assert "4 members: 1 done, 3 pruned" in whole
    workdir = tmp_path / "killed"
    for step in (160, 320):
        process = start("sweep", f"--workdir={workdir}", *halving)
        when(process, lambda line, step=step: line.startswith(f"step {step}/"))
        process.kill()
        finish(process)
    run("sweep", f"--workdir={workdir}", *halving, "--export=all")
    assert without_times(table(workdir)) == without_times(table(tmp_path / "whole"))
    hashes = [
        [json.loads(path.read_text())["state_sha256"] for path in sorted(x.glob("members/*/result.json"))]
        for x in (tmp_path / "whole", workdir)
    ]
    assert hashes[0] == hashes[1] and len(set(hashes[0])) == 4
    rows = table(workdir)
    done = next(int(row["trial"]) for row in rows if row["status"] == "done")
    home = workdir / "trials" / f"{done:05d}"
    run("sample", f"--workdir={home}", f"--out={tmp_path / 'samples.png'}")
    assert (tmp_path / "samples.png").stat().st_size > 1000
    point = {"learning_rate": float(rows[done]["learning_rate"]), "seed": int(rows[done]["seed"])}
    overrides = [f"--config.{key}={value}" for key, value in point.items()]
    longer = [flag.replace("steps=400", "steps=440") for flag in FLAGS]
    assert "continuing from the checkpoint of step 400" in run("train", f"--workdir={home}", *longer, *overrides)
    assert "is a run of its own" not in run("sweep", f"--workdir={workdir}", *halving, "--export=all")
    assert result(home)["step"] == 440, "and what a person made of it is left alone"


@pytest.mark.long
@pytest.mark.xdist_group("sweep")
def test_killed_and_continued_population_based_training_ends_the_same(tmp_path):
    flags = [flag.replace("steps=400", "steps=240") for flag in FLAGS]
    flags += [SPACE, "--search=pbt", f"--pbt_images={80 * 256}", "--export=none"]
    run("sweep", f"--workdir={tmp_path / 'whole'}", *flags)
    process = start("sweep", f"--workdir={tmp_path / 'killed'}", *flags)
    when(process, lambda line: line.startswith("step 120/"))
    process.kill()
    finish(process)
    run("sweep", f"--workdir={tmp_path / 'killed'}", *flags)
    whole, killed = (without_times(table(tmp_path / name)) for name in ("whole", "killed"))
    assert killed == whole
    hashes = [
        [json.loads(path.read_text())["state_sha256"] for path in sorted(x.glob("members/*/result.json"))]
        for x in (tmp_path / "whole", tmp_path / "killed")
    ]
    assert hashes[0] == hashes[1] and len(set(hashes[0])) == 4
    begun = ("sweep", f"--workdir={tmp_path / 'killed'}", *flags)
    assert "factor: 1.25 there, 'absent' now" in run(*begun[:-3], "--search=halving", code=2)
    assert "every: 80 there, 40 now" in run(*begun, f"--pbt_images={40 * 256}", code=2)
    decisions = [json.loads(line) for line in (tmp_path / "killed" / "decisions.jsonl").read_text().splitlines()]
    assert [decision["step"] for decision in decisions] == [80, 160] and all(x["copies"] for x in decisions)
    rates = sorted({float(row["hparams/generator/learning_rate"]) for row in killed})
    assert rates[0] > 4.99e-4 and rates[-1] < 2.01e-3, "within the space"
    assert any(6e-4 < rate < 1.9e-3 for rate in rates), "copies explore"
    assert (tmp_path / "killed" / "lineage.png").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("sweep")
def test_trials_one_by_one_are_the_printed_commands(tmp_path):
    space = "--space=update_rule=alternating,simultaneous"
    flags = [flag.replace("400", "40") for flag in FLAGS]
    printed = run("sweep", f"--workdir={tmp_path}", *flags, space, "--print_commands").splitlines()
    assert len(printed) == 2 and "--config.update_rule=simultaneous" in printed[1] and "--config.width=16" in printed[1]
    assert printed[1].startswith("gan-jax train --config=") and "trials/00001" in printed[1]
    assert "2 trials, 0 failed" in run("sweep", f"--workdir={tmp_path}", *flags, space, "--engine=local", fresh=True)
    rows = table(tmp_path)
    assert [row["status"] for row in rows] == ["done", "done"] and rows[0]["update_rule"] == "alternating"
    again = run("sweep", f"--workdir={tmp_path}", *flags, space, "--engine=local")
    assert "trial 0 of" not in again and table(tmp_path) == rows


@pytest.mark.slow
@pytest.mark.xdist_group("sweep")
def test_bad_input_is_told(tmp_path):
    def refused(*flags):
        return run("sweep", *FLAGS, *flags, code=2)

    assert "--workdir is missing" in refused(SPACE)
    assert "--workdir is missing" in refused(SPACE, "--dry_run", "--print_commands")
    assert "compiled in" in run("sweep", *FLAGS, SPACE, "--dry_run"), "which needs no workdir"
    other = str(ROOT / "experiments" / "configs" / "cgan_mnist.py")
    assert "has no sweep()" in run("sweep", f"--config={other}", f"--workdir={tmp_path}", code=2)
    assert "width=32 changes the program" in refused("--space=width=16,32", f"--workdir={tmp_path / 'a'}")
    run("sweep", *FLAGS, SPACE, f"--workdir={tmp_path / 'b'}", "--config.steps=40")
    assert "has another sweep" in refused("--space=seed=0,1", f"--workdir={tmp_path / 'b'}", "--config.steps=40")
    b = (SPACE, f"--workdir={tmp_path / 'b'}", "--config.steps=40")
    for wish in ("7", "²"):
        assert "is not a trial that can be exported" in refused(*b, f"--export={wish}")
    assert "gamma: 0.02 there, 0.5 now" in refused(*b, "--config.gamma=0.5")
    assert "before the end: the first decision is after 10,240 images" in refused(*b, "--search=pbt")
    lost = ("--space=learning_rate=1e25,1e26", f"--workdir={tmp_path / 'lost'}", "--config.steps=40")
    assert "2 members: 2 diverged" in run("sweep", *FLAGS, *lost, code=3)
    assert "ids among those with a saved state: there are none" in refused(*lost, "--export=0")
    assert "--num_trials is for --points=random" in refused(*b, "--num_trials=3")
    assert "--first_rung and --eta are for" in refused(*b, "--eta=2")
    assert "--print_commands is for" in refused(*b, "--print_commands", "--search=halving")
    assert "is for --engine=study" in refused(*b, "--sampler=qmc")
    assert "--engine=local is for one process" in refused(*b, "--engine=local", "--num_processes=2")


def ring():
    spec = importlib.util.spec_from_file_location("ring", RING)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def members(text):
    module = ring()
    config = module.get_config()
    config.width = 8
    return trials.as_members(module, config, spaces.grid(spaces.parse(text)))


def test_trials_as_members():
    made = members("learning_rate=1e-3,1e-2;gamma=0.1;seed=3,4")
    assert [member.seed for member in made.members] == [3, 4, 3, 4]
    assert made.names["learning_rate"] == ["discriminator/learning_rate", "generator/learning_rate"]
    assert set(made.members[0].hparams) == set(made.names["learning_rate"])
    assert made.members[2].hparams["generator/learning_rate"] == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width=8,16", "width=16 changes the program"),
        ("latents=2,3", "latents=3 changes the program"),
        ("update_rule=alternating,simultaneous", "changes the program"),
        ("batch_size=16,32", "share batch_size"),
        ("steps=10,20", "share steps"),
        ("sample_count=10,20", "share sample_count"),
        ("nothing=1,2", "the config has no such key"),
        ("learning_rate=fast", "'fast' does not fit"),
    ],
)
def test_what_members_can_not_vary(text, message):
    with pytest.raises(InvalidInputError, match=message):
        members(text)


def test_commands_of_trials():
    words = trials.command(pathlib.Path("c.py"), {"a": 1e-05, "b": "x y", "c": True}, pathlib.Path("w"))
    assert words == [
        "gan-jax",
        "train",
        "--config=c.py",
        "--workdir=w",
        "--config.a=1e-05",
        "--config.b=x y",
        "--config.c=True",
    ]
    assert trials.shown(words).endswith("'--config.b=x y' --config.c=True")

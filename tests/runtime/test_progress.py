"""What the user sees of a run: lines of at most 80 columns in a pipe, a progress bar on a terminal."""

import io
import re

import pytest

from gan_jax.runtime import progress

LOSSES = {f"{name}/loss": value for name, value in (("discriminator", 1.38629), ("generator", 0.69315))}
PACE = (12_800, 2345.6, 133.4)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_in_a_pipe_every_report_is_a_line_and_its_values_below(capsys):
    shown = progress.Progress(0, 6000, progress.log)
    shown.move(50)
    shown.report(200, PACE, LOSSES, {f"eval/metric_{n}": n for n in range(8)})
    shown.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 200/6,000  images 12,800  2,346 images/s  ETA 0:02:13"
    assert lines[1].startswith("  discriminator/loss 1.386  generator/loss 0.6932  eval/metric_0 0")
    assert len(lines) > 2 and max(map(len, lines)) <= 80


def test_on_a_terminal_one_line_moves_and_what_is_printed_stands_above_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stdout", terminal)
    shown = progress.Progress(0, 6000, progress.log)
    shown.report(200, PACE, LOSSES, {"eval/fcd2k": 1.5})
    shown._bar.mininterval = 0
    shown.move(3000)
    progress.log("samples in a file")
    shown.close()
    frames = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[mA]", "", terminal.getvalue()))
    assert any("3,000/6,000  2,346 images/s  0:02:13  dis 1.39  gen 0.693" in frame for frame in frames)
    assert all(len(frame.split("|")[1]) >= 10 for frame in frames if "%" in frame)
    assert "samples in a file" in frames and any(frame.rstrip().endswith("eval/fcd2k 1.5") for frame in frames)
    assert max(len(frame) for frame in frames) <= 80 and "\x1b[" in terminal.getvalue(), "colour"


@pytest.mark.parametrize("columns", [24, 50, 200])
def test_a_bar_fits_the_terminal_and_leaves_its_last_values(monkeypatch, columns):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = progress.Progress(0, 6000, progress.log)
    shown._bar.mininterval = 0
    shown.report(200, PACE, LOSSES, {})
    shown.move(3000)
    shown.close()
    *frames, head, values, _ = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[mA]", "", terminal.getvalue()))
    assert max(map(len, frames)) <= min(columns, 80) and any(re.search(r" 50% \|[#█]{5}", frame) for frame in frames)
    assert head.startswith("step 200/6,000") and values == "  discriminator/loss 1.386  generator/loss 0.6932"


def test_names_of_losses_are_cut_until_they_would_be_equal():
    assert progress._abbreviated(["generator", "discriminator"]) == ["gen", "dis"]
    assert progress._abbreviated(["critic_a", "critic_b", "g"]) == ["critic_a", "critic_b", "g"]
    assert progress._abbreviated([]) == []


def test_a_log_of_ones_own_gets_every_line_and_no_bar(monkeypatch):
    monkeypatch.setattr(progress.sys, "stdout", Terminal())
    said = []
    shown = progress.Progress(0, 6000, said.append)
    shown.report(200, PACE, LOSSES, {})
    assert shown._bar is None and said[0].startswith("step 200/6,000")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (3725.0, "1:02:05"), (100_000.0, "1 day, 3:46:40")])
def test_durations(seconds, text):
    assert progress.duration(seconds) == text

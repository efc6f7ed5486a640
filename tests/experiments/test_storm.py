"""A run that is killed while starting, running and saving, as one process or two, ends as if it had not been."""

import collections

import pytest

from benchmarks import storm_digits


@pytest.mark.slow
@pytest.mark.storm
def test_a_storm_of_kills(tmp_path):
    *kills, final = storm_digits.storm(tmp_path, 5, seed=921)
    kinds = collections.Counter(event["kind"] for event in kills)
    assert set(kinds) == {"starting", "running", "saving", "terminated", "one of two"}
    assert {event["processes"] for event in kills} == {1, 2}
    assert 0 < kills[-1]["saved"] < final["steps"], "the run was over before the storm"
    assert final["lines"] == -(-final["steps"] // 20)  # rounded up: the last step is reported too

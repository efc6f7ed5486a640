"""A run that is killed while starting, running and saving, as one process or two, ends as if it had not been."""

import collections

import pytest

from benchmarks import storm


@pytest.mark.slow
@pytest.mark.storm
def test_a_storm_of_kills(tmp_path):
    *kills, final = storm.storm(tmp_path, 5, seed=921)
    kinds = collections.Counter(event["kind"] for event in kills)
    assert set(kinds) == {storm.STARTING, storm.RUNNING, storm.SAVING, storm.TERMINATED, storm.ONE_OF_TWO}
    assert {event["processes"] for event in kills} == {1, 2}
    assert 0 < kills[-1]["saved"] < final["steps"], "the run was over before the storm"
    assert final["lines"] == -(-final["steps"] // 20)  # rounded up: the last step is reported too

"""Buckets of both services for the tests here."""

import secrets

import pytest

from gan_jax.buckets import BucketPath, lease, objects, tails
from tests.buckets import emulators


@pytest.fixture(params=["gs", "s3"])
def service(request, monkeypatch):
    """A bucket of each service; yields its scheme and its front."""
    front = emulators.front(request.param)
    for name, value in emulators.variables(request.param, front).items():
        monkeypatch.setenv(name, value)
    objects.bucket.cache_clear()
    yield request.param, front
    tails.close("")
    for one in list(lease._held.values()):
        one.release()
    lease._seen.clear()


@pytest.fixture
def home(service):
    """A directory of the test's own."""
    return BucketPath(f"{service[0]}://{emulators.NAME}/{secrets.token_hex(4)}/one")

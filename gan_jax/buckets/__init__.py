"""Workdirs in buckets: paths such as gs://bucket/run, objects written under a lease, and logs kept in parts."""

from gan_jax.buckets.lease import Lease, holding, take
from gan_jax.buckets.objects import SCHEMES, StorageError, telling
from gan_jax.buckets.path import BucketPath, append_line, local_copy, read_log, write_log
from gan_jax.buckets.tails import close, settle

__all__ = [
    "SCHEMES",
    "BucketPath",
    "Lease",
    "StorageError",
    "append_line",
    "close",
    "holding",
    "local_copy",
    "read_log",
    "settle",
    "take",
    "telling",
    "write_log",
]

"""A program for several processes: each joins the cluster that JAX finds, and prints its index and their number."""

import jax

from gan_jax.distributed import hosts

if __name__ == "__main__":
    hosts.join("on")
    print(hosts.rank(), jax.process_count())
    hosts.part()

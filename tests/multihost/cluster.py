"""Run in several processes: each joins the cluster that JAX finds, and prints which it is and how many there are."""

import jax

from gan_jax.distributed import hosts

if __name__ == "__main__":
    hosts.join("on")
    print(hosts.rank(), jax.process_count())
    hosts.part()

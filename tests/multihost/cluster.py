"""A program for several processes: each joins the cluster that JAX finds, and prints its index and their number.

With the argument `abort` it then aborts, while a thread runs, as JAX does where another process is lost.
"""

import faulthandler
import os
import sys
import threading
import time

import jax

from gan_jax.distributed import hosts

if __name__ == "__main__":
    faulthandler.enable()  # as absl does for the commands
    hosts.join("on")
    print(hosts.rank(), jax.process_count(), flush=True)
    if "abort" in sys.argv:
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
        os.abort()
    hosts.part()

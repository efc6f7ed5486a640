"""The command `gan-jax fetch` as `python -m experiments.fetch`."""

from gan_jax.cli.main import main

if __name__ == "__main__":
    main(["fetch"])

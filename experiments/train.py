"""The command `gan-jax train` as `python -m experiments.train`."""

from gan_jax.cli.main import main

if __name__ == "__main__":
    main(["train"])

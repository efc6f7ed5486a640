"""The commands: `gan-jax train`, `sample`, `evaluate` and `sweep`. Nothing else imports this package."""

"""The commands `gan-jax train`, `sample`, `evaluate` and `sweep`. No other package of the library imports this one."""

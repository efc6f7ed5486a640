"""Everything that is to be known about an accelerator, measured by one command in less than nine minutes.

The command is `python -m benchmarks.accelerator`; docs/accelerator.md describes it. Each part is a module of this
package with `run(context)`, and runs in a process of its own, which the command ends when its time is over.
"""

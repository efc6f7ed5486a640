"""Processes, meshes of devices, signals, and the watchdog."""

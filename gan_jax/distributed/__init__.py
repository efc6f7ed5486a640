"""Several processes in one run, meshes of devices, stop signals, and the watchdog."""

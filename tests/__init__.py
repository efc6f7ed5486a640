"""The tests; what is here must be known before JAX is imported."""

import importlib.metadata

# Most of the time of tests is XLA compiling. Its optimisations are half of that, and its newer emitters of fused loops
# half of the rest; processes that are not `quick` have them all.
QUICK_XLA = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones end the process at a flag they don't know
    QUICK_XLA += " --xla_cpu_use_fusion_emitters=false"

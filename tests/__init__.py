"""The test suite. This module holds what must be known before JAX is imported."""

import importlib.metadata

# Tests spend most of their time in XLA's compilation. Its optimisations are half of that, and its newer emitters of
# fused loops half of the rest. Processes that are not `quick` use them all.
QUICK_XLA = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later versions abort at an unknown flag
    QUICK_XLA += " --xla_cpu_use_fusion_emitters=false"

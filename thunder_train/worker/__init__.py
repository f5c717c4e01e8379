"""What runs on every rank. Only this folder imports mlx."""

import os

# mlx_lm sets it too, but transformers may be imported first, and would print that PyTorch is missing.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

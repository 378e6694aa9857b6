"""Disaster recovery for PostgreSQL and file storage that proves itself, on Dagster."""

import os

__version__ = "0.1.0"

# Read by libraries when they are loaded, and so set before any of them is. What the operator has set stays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's threads for matrices, of which there are none, spin first
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looked for in the metadata of all that is installed

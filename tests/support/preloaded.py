"""What takes a command of `dr` most of its first seconds, done once in the process that the others are forked from."""

import os

# No thread may be there when it is forked; both are read when the libraries are loaded.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

import pytest

import dr_pipelines.cli.app
from dr_pipelines import operations
from dr_pipelines.storage.s3 import make_client

for name in operations.__all__:
    getattr(operations, name)
# botocore reads its descriptions of the service with the first client, and keeps them.
make_client(endpoint="http://127.0.0.1:1", region="us-east-1", access_key_id="none", secret_access_key="none")

__all__ = ["dr_pipelines", "pytest"]

"""What takes a command of `dr` most of its first second, done once in the process that the others are forked from."""

import pytest

from dr_pipelines import cli
from dr_pipelines.storage.s3 import make_client

# botocore reads its descriptions of the service with the first client, and keeps them.
make_client(endpoint="http://127.0.0.1:1", region="us-east-1", access_key_id="none", secret_access_key="none")

__all__ = ["cli", "pytest"]

"""What the tests share: the broker under test, fresh names, and a way to restart the broker."""

import os
import subprocess
import uuid

import pytest

BOOTSTRAP = os.environ["BOOTSTRAP"]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]

# Tests of what Vltava does otherwise than Kafka, on purpose, carry this mark.
vltava_only = pytest.mark.skipif(
    os.environ.get("BROKER") != "vltava", reason="a documented difference of Vltava"
)


def fresh(prefix):
    """A name that nothing used before."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def restart():
    """Stops the broker in an orderly way and starts it again; returns when it serves."""
    command = os.environ.get("RESTART_CMD")
    if not command:
        pytest.skip("no RESTART_CMD: this broker cannot be restarted from here")
    return lambda: subprocess.run(command, shell=True, check=True, timeout=60)

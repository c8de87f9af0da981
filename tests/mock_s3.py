"""An object store of our own: a mock S3 server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch
from urllib.request import Request, urlopen


@contextmanager
def mock_s3(bucket: str) -> Iterator[dict[str, str]]:
    """An empty bucket: the variables by which every client of this process, where they are set, and others finds it."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    variables = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    # What it holds is the process's own, and outlives the server.
    urlopen(Request(f"{address}/moto-api/reset", method="POST")).close()
    try:
        with patch.dict("os.environ", variables):
            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem().mkdir(f"s3://{bucket}")
            yield variables
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()

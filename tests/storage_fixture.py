"""An S3 server on loopback, for tests of object storage."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from pyarrow.fs import FileSystem
from werkzeug.serving import make_server

from prerank.core.storage import Remote

App = Callable[[dict[str, Any], Callable], Any]
"""A WSGI application."""


@contextmanager
def s3_server(wrap: Callable[[App], App] = lambda app: app) -> Iterator[dict[str, str]]:
    """A server; the environment that leads to it. `wrap` may put an application before it that fails some requests."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    app = wrap(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def new_bucket() -> Remote:
    """An empty bucket of the server that the environment leads to; no two have the same name."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    FileSystem.from_uri(f"s3://{name}?allow_bucket_creation=true")[0].create_dir(name)
    return Remote(f"s3://{name}")

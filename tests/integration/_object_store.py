"""An S3 server on loopback, and paths of files in any store."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import ObjectStoragePath
from moto.server import ThreadedMotoServer

BUCKET = "lakebase-tests"


class Server:
    """The S3 server and the requests it got."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.refusing = False
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        self.url = "http://{}:{}".format(*self.server.get_host_and_port())
        application = self.server._server.app

        def counting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            copied = " copy" if "HTTP_X_AMZ_COPY_SOURCE" in environ else ""
            self.requests.append((environ["REQUEST_METHOD"] + copied, environ["PATH_INFO"]))
            if self.refusing:
                body = b"<Error><Code>AccessDenied</Code><Message>secret detail</Message></Error>"
                body = b"" if environ["REQUEST_METHOD"] == "HEAD" else body
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response(
                    "403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
                )
                return [body]
            return application(environ, start_response)

        self.server._server.app = counting


def path_of(url: str) -> Any:
    """Return the path of a file: local, on S3, or in fsspec's memory."""
    if url.startswith("memory://"):
        from upath import UPath

        return UPath(url)
    return ObjectStoragePath(url) if "://" in url else Path(url)


def write(url: str, content: bytes) -> str:
    """Write a file, and return its path or URL."""
    if "://" not in url:
        Path(url).parent.mkdir(parents=True, exist_ok=True)
    path_of(url).write_bytes(content)
    return url


def write_rows(url: str, rows: list[dict[str, Any]]) -> str:
    """Write rows in the format of the name, by a writer that is not the provider's, and return the path or URL."""
    return write(url, _encode(url.rpartition(".")[2], rows))


def _encode(format: str, rows: list[dict[str, Any]]) -> bytes:
    if format == "jsonl":
        return "".join(f"{json.dumps(row, default=str)}\n" for row in rows).encode()
    if format == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()

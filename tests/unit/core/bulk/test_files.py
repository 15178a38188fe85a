"""Files are opened, decompressed and written as a whole, without a server."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from airflow_provider_lakebase.core.bulk.byte_reader import Unreadable, open_as_text
from airflow_provider_lakebase.core.bulk.files import open_to_read, open_to_write


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst"])
def test_a_file_is_compressed_by_its_name_and_decompressed_by_its_content(tmp_path: Path, name: str):
    with open_to_write(tmp_path / name) as file:
        file.write(b"id\n1\n")
    renamed = (tmp_path / name).rename(tmp_path / "renamed.csv")
    with open_to_read(renamed) as file:
        assert file.read() == b"id\n1\n"


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), open_to_write(tmp_path / "a.csv") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_bytes() == b"old"


def test_a_file_that_cannot_seek_keeps_its_first_bytes():
    class Pipe:
        def __init__(self) -> None:
            self.data = io.BytesIO(b"id,note\n1,a\n")

        def read(self, size: int) -> bytes:
            return self.data.read(min(size, 2))

    with open_to_read(Pipe()) as file:
        assert file.read() == b"id,note\n1,a\n"


def test_a_file_that_is_compressed_again_and_again_is_refused(tmp_path: Path):
    content = b"id\n"
    for _ in range(6):
        content = gzip.compress(content)
    with pytest.raises(Unreadable, match="again and again"), open_to_read(io.BytesIO(content)):
        pass


def test_the_byte_order_mark_is_not_part_of_the_text():
    assert open_as_text(io.BytesIO(b"\xef\xbb\xbfid\n")).read(3) == b"id\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [("id".encode("utf-16"), "it is UTF-16"), (b"PAR1xx", "a Parquet file"), (b"PK\x03\x04", "zip")],
)
def test_other_content_is_recognized(content: bytes, said: str):
    with pytest.raises(Unreadable, match=said):
        open_as_text(io.BytesIO(content))

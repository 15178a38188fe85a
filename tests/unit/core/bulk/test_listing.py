"""Which files a folder or a pattern names, on this machine."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lakebase.core.bulk.listing import list_files
from airflow_provider_lakebase.exceptions import LakebaseSettingsError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path, *patterns: str, **options: Any) -> list[str]:
    return [str(each.relative_to(folder)) for each in list_files([folder / each for each in patterns], **options)]


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    make(tmp_path, "in/a.csv", "elsewhere/b.csv")
    os.symlink(tmp_path / "elsewhere", tmp_path / "in" / "linked")
    os.symlink(tmp_path / "in", tmp_path / "in" / "circle")
    os.symlink(tmp_path / "elsewhere" / "b.csv", tmp_path / "in" / "z.csv")
    assert found(tmp_path, "in") == ["in/a.csv", "in/linked/b.csv", "in/z.csv"]


def test_a_pattern_looks_no_deeper_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make(tmp_path, "a/b/c/d.csv", "a/x.csv")
    scanned: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (scanned.append(str(path)), scandir(path))[1])
    assert found(tmp_path, "*/*.csv") == ["a/x.csv"]
    assert str(tmp_path / "a") in scanned
    assert str(tmp_path / "a" / "b") not in scanned
    with pytest.raises(LakebaseSettingsError, match="matches folders only"):
        found(tmp_path, "a/b*")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**", ["_d=1/c.csv", "a.csv", "x/b.csv"]),
        ("?.csv", ["a.csv"]),
        ("?/?.csv", ["x/b.csv"]),
        ("**/b.csv", ["x/b.csv"]),
        ("**/**/a.csv", ["a.csv"]),
        ("x/**", ["x/b.csv"]),
        ("_h/*", ["_h/d.csv"]),
        ("**/_*", ["_e.csv"]),
        ("*/.f*", ["x/.f.csv"]),
        ("[ax].csv*", []),
        ("a.csv/*", []),
        ("A.*", []),
    ],
)
def test_what_a_pattern_matches(tmp_path: Path, pattern: str, expected: list[str]):
    make(tmp_path, "a.csv", "x/b.csv", "_d=1/c.csv", "_h/d.csv", "_e.csv", "x/.f.csv")
    assert found(tmp_path, pattern, allow_empty=True) == expected


def test_a_name_with_a_line_break_is_matched(tmp_path: Path):
    make(tmp_path, "a\nb/c.csv")
    assert found(tmp_path, "*/*.csv") == found(tmp_path, "**") == ["a\nb/c.csv"]


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    make(tmp_path, "a.csv")
    monkeypatch.setattr(os, "scandir", refuse)
    for pattern in ("", "*.csv"):
        with pytest.raises(PermissionError):
            found(tmp_path, pattern, allow_empty=True)


def test_open_files_and_missing_files_are_left_to_those_who_read_them(tmp_path: Path):
    opened = io.BytesIO()
    assert list_files([opened, "none.csv", tmp_path / "none"]) == [opened, "none.csv", tmp_path / "none"]
    assert list_files([tmp_path / "none"], allow_empty=True) == []
    assert list_files([tmp_path / "none.csv.gz"], allow_empty=True) == [tmp_path / "none.csv.gz"]

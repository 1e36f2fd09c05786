"""Handlers that do what they like with their inputs."""

import os
import shutil
from pathlib import Path
from typing import Dict, List, Optional

import pandas as pd


def rewritten(note: Path):
    note.write_text("lost")
    note.rename(note.with_name("other.txt"))
    return note.with_name("other.txt").read_text()


def folder_removed(rows: Path):
    names = sorted(p.relative_to(rows).as_posix() for p in rows.rglob("*.csv"))
    shutil.rmtree(rows)
    return names


def twice(first: Path, second: Optional[Path] = None):
    first.unlink()
    return second.read_text()


def many(listed: List[Path], named: Dict[str, Path]):
    texts = [p.read_text() for p in [*listed, *named.values()]]
    for path in [*listed, *named.values()]:
        os.truncate(path, 0)
    return texts


def frame(rows: pd.DataFrame):
    rows["more"] = 0
    rows.pop(rows.columns[0])
    return rows.shape


def as_the_sdk_does(rows, note):
    frame = rows.as_df(file_format="csv", sep=";", usecols=["a"])
    own = Path(note.download())
    own.write_text("lost")
    there = Path(note.download("kept/here.txt"))
    there.write_text("lost, too")
    again = Path(note.download("kept/here.txt", overwrite=True)).read_text()
    try:
        note.download(destination="kept/here.txt")
    except Exception as exc:
        refused = str(exc)
    with open(note, "a") as file:
        file.write("lost")
    into = Path(note.download("folder"))
    many = Path(rows.download("copied"))
    return {
        "a": sorted(frame["a"].tolist()),
        "again": again,
        "refused": refused,
        "into": into.as_posix(),
        "as_file": Path(note.as_file()).read_text(),
        "many": sorted(p.relative_to(many).as_posix() for p in many.rglob("*.csv")),
    }


def unknown_type(odd):
    return odd.as_df()


def unknown_type_by_hint(odd: pd.DataFrame):
    return odd

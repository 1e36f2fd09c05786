"""Values of shapes and sizes that are easily lost."""

import enum
import io
import os
import socket
import tempfile
import threading
from pathlib import Path

from digitalhub_runtime_python import handler


class Level(enum.Enum):
    LOW = 1


@handler(outputs="score")
def one_name():
    return 0.5


@handler(outputs={"name": "notes", "kind": "artifact"})
def one_declaration():
    return b"note"


def large_text():
    return "línea\r\n" * 50_000


def many_large_results():
    return tuple("x" * 200_000 for _ in range(4)) + (1,)


@handler(outputs=["frame", "shape", "columns"])
def shape_beside_a_frame():
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    return frame, frame.shape, frame.columns.tolist()


@handler(outputs=["mixed", "cut", "described", "sparse", "complex", "huge", "enum", "twice", "score"])
def frames_that_parquet_cannot_hold():
    import pandas as pd

    numbers = pd.Series([1, 5, 9])
    return (
        pd.DataFrame({"v": [1, "x", 2.5]}),
        pd.DataFrame({"v": pd.cut(numbers, [0, 3, 6, 9])}),
        pd.DataFrame({"n": [1, 2], "s": ["x", "y"]}).describe(include="all"),
        pd.DataFrame({"v": pd.arrays.SparseArray([0, 0, 1])}),
        pd.DataFrame({"v": [1j, 2j]}),
        pd.DataFrame({"v": [2**70, 1]}),
        pd.Series([Level.LOW], name="v"),
        pd.DataFrame([[1, 2]], columns=["v", "v"]),
        0.5,
    )


def frame_with_attrs():
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2]})
    frame.attrs = {"unit": "m", "lock": threading.Lock()}
    return frame


@handler(outputs=["objects", "series", "batch", "reader"])
def frames_of_others():
    import polars as pl
    import pyarrow as pa

    batch = pa.RecordBatch.from_pydict({"a": [1, 2]})
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch, batch])
    return pl.DataFrame({"o": [object(), object()]}, schema={"o": pl.Object}), pl.Series("s", [1]), batch, reader


@handler(outputs=["squares", "keys", "pairs", "same_key", "halves", "itself"])
def odd_values():
    itself = []
    itself.append(itself)
    return (n * n for n in range(3)), {"a": 1}.keys(), zip("ab", (1, 2)), {1: "a", "1": "b"}, "\ud800", itself


@handler(outputs=["memory", "text", "file", "spooled", "several"])
def file_objects():
    Path("made").mkdir(exist_ok=True)
    written = open("made/written.txt", "w")
    written.write("not flushed")
    spooled = tempfile.SpooledTemporaryFile()
    spooled.write(b"spooled")
    Path("made/a.txt").write_text("a")
    Path("made/b").mkdir(exist_ok=True)
    Path("made/b/a.txt").write_text("b")
    several = [Path("made/a.txt"), Path("made/b/a.txt"), Path("made/b")]
    return io.BytesIO(b"\x01"), io.StringIO("text"), written, spooled, several


@handler(outputs=["folder"])
def folder_with_links():
    Path("top/real").mkdir(parents=True, exist_ok=True)
    Path("top/real/one.txt").write_text("1")
    for link, target in (("top/file.txt", "real/one.txt"), ("top/folder", "real")):
        if not os.path.lexists(link):
            os.symlink(target, link)
    return Path("top")


@handler(outputs=["loop", "fifo", "socket", "nowhere", "device", "gone", "itself", "score"])
def folders_that_cannot_be_stored():
    for name in ("loop/deeper", "fifo", "socket", "nowhere"):
        Path("odd", name).mkdir(parents=True, exist_ok=True)
    os.symlink("..", "odd/loop/deeper/up")
    os.mkfifo("odd/fifo/pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("odd/socket/s")
    listening.close()
    os.symlink("/no/such/file", "odd/nowhere/link")
    os.symlink("self", "odd/self")
    with tempfile.TemporaryDirectory() as folder:
        gone = Path(folder, "model.bin")
        gone.write_bytes(b"m")
    paths = [Path("odd", n) for n in ("loop", "fifo", "socket", "nowhere")]
    return (*paths, Path("/dev/zero"), gone, Path("odd/self"), 0.5)


@handler(outputs=["here"])
def this_folder():
    os.makedirs("own", exist_ok=True)
    os.chdir("own")
    Path("kept.txt").write_text("kept")
    return Path(".")

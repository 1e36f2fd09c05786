"""Values that are stored as entities."""

from pathlib import Path

from helper import double

from digitalhub_runtime_python import handler


class Model:
    def __init__(self, factor):
        self.factor = factor

    def predict(self, n):
        return double(n) * self.factor


@handler(outputs=["frame", "series", "named_index"])
def pandas_values():
    import pandas as pd

    frame = pd.DataFrame({"i": [1, 2], "f": [0.5, float("inf")], "s": ["x", None], "t": pd.to_datetime(["2026-01-31"] * 2)})
    return frame, pd.Series([1, 2, 3], name="n"), frame.set_index("s")


def polars_values():
    import polars as pl

    frame = pl.DataFrame({"a": [1, 2, 3]})
    return frame, frame.lazy().filter(pl.col("a") > 1)


def arrow_table():
    import pyarrow as pa

    return pa.table({"a": [1, 2], "l": [[1], []]})


def empty_frame():
    import pandas as pd

    return pd.DataFrame({"a": []})


def arrays():
    import numpy as np

    return np.arange(6).reshape(2, 3), np.array([object()]), np.ma.masked_array([1, 2], [True, False])


def figures():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([1, 2])
    plt.close(figure)
    return figure


def plotly_figure():
    import plotly.graph_objects as go

    return go.Figure(go.Bar(y=[1, 2]))


def images():
    from PIL import Image

    return Image.new("RGB", (4, 3), "red"), Image.new("CMYK", (4, 3)), Image.new("RGBA", (4, 3))


@handler(outputs=["raw", "buffer", "file", "folder"])
def files():
    Path("report.txt").write_text("a report")
    Path("parts/deeper").mkdir(parents=True, exist_ok=True)
    Path("parts/one.csv").write_text("a\n1\n")
    Path("parts/deeper/two.csv").write_text("a\n2\n")
    return b"\x00\x01", bytearray(b"\x02"), Path("report.txt"), Path("parts").absolute()


@handler(outputs=["left", "right"])
def same_name():
    for side in ("left", "right"):
        Path(side).mkdir(exist_ok=True)
        Path(side, "data.txt").write_text(side)
    return Path("left/data.txt"), Path("right/data.txt")


@handler(outputs=["model"])
def unknown_class():
    return Model(3)


@handler(outputs=["fn"])
def a_function():
    return double


@handler(outputs=["first", "broken", "last"])
def one_fails():
    import threading

    return 1, threading.Lock(), b"last"


@handler(outputs=["a", "b", "ok"])
def two_fail():
    import threading

    return threading.Lock(), Path("no/such/file"), True


@handler(outputs=[{"name": "model", "kind": "model", "spec_kwargs": {"framework": "none"}}, {"name": "table", "kind": "table"}])
def kinds():
    Path("weights").mkdir(exist_ok=True)
    Path("weights/w.bin").write_bytes(b"w")
    Path("rows.csv").write_text("a\n1\n")
    return "weights", Path("rows.csv")


@handler(outputs=["odd name / with: signs"])
def odd_name():
    return b"x"

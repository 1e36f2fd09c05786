from pathlib import Path


def report(threshold=1, label="default", rows: Path = None, ratio=0.5):
    text = rows.read_text().strip() if isinstance(rows, Path) else rows
    return {"threshold": threshold, "label": label, "rows": text, "ratio": ratio}

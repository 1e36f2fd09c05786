"""Files beside the code, by relative paths."""

import argparse
import sys
from pathlib import Path

AT_IMPORT = Path("data/labels.txt").exists()


def read():
    with open("data/labels.txt") as file:
        return file.read().split()


def tries(): 
    try:
        return read()
    except OSError as exc:
        raise RuntimeError("no labels") from exc


def at_import():
    return AT_IMPORT


def parses():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    return [parser.parse_args().epochs, sys.argv]


def beside():
    import beside_pythonpath

    return beside_pythonpath.NAME


def children():
    import subprocess

    code = "import os, beside_pythonpath; print(os.path.exists('data/labels.txt'), beside_pythonpath.NAME)"
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

"""Packages that resolve together and do not work together: what their metadata do not say."""

from __future__ import annotations

import re

from packaging.utils import canonicalize_name
from packaging.version import Version

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.M)
_INCOMPATIBLE = tuple(
    (name, before, "numpy", "2", "numpy<2")
    for name, before in (
        ("scikit-learn", "1.4.2"), ("pandas", "2.2.2"), ("scipy", "1.13"), ("matplotlib", "3.8.4"), ("pyarrow", "16"),
        ("numba", "0.60"), ("tensorflow", "2.18"), ("torch", "2.3"), ("xgboost", "2.1"), ("lightgbm", "4.4"),
        ("statsmodels", "0.14.2"), ("h5py", "3.11"), ("opencv-python", "4.10.0.84"), ("opencv-python-headless", "4.10.0.84"),
        ("scikit-image", "0.23.2"), ("shapely", "2.0.5"), ("gensim", "4.3.3"), ("spacy", "3.8"), ("thinc", "8.3"),
        ("bottleneck", "1.4"), ("numexpr", "2.10"), ("tables", "3.9.3"), ("astropy", "6.1"), ("netcdf4", "1.7"),
    )
)  # fmt: skip
"""(package, its first version that works, with which one, since when, the cure): what metadata do not say. Built
against numpy 1's interface, or using what numpy 2 has removed."""


def known_conflicts(lock: str) -> list[str]:
    """A warning for each package of a lock that is known not to work with another one of it."""
    pins: dict[str, Version] = {
        canonicalize_name(name): Version(version) for name, version in _PIN.findall(lock)
    }
    found = []
    for name, before, other, since, cure in _INCOMPATIBLE:
        if name in pins and other in pins and pins[name] < Version(before) and pins[other] >= Version(since):  # fmt: skip
            found.append(
                f"warning: {name} {pins[name]} does not work with {other} {pins[other]}: it will fail when it is imported. "
                f"Add {cure!r} to the requirements, or take {name}>={before}."
            )
    return found

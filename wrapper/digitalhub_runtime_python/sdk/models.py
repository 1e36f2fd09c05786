"""The shapes of the parameters that are more than a string or a number.

Both SDK versions have models of their own for some of these; these are one set for both, and a
misspelt field is an error instead of being dropped.
"""

# No `from __future__ import annotations`: pydantic reads these hints at run time, and Python 3.9
# has no `str | None` then.
from enum import Enum
from typing import Annotated, Any, Optional, Union

from pydantic import BaseModel, ConfigDict, Field

Quantity = Union[Annotated[str, Field(pattern=r"^\d+(\.\d+)?([a-zA-Z]+)?$")], int]
"""Of Kubernetes: `"500m"`, `"2Gi"`, `1`."""


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", use_enum_values=True, defer_build=True)


class VolumeType(Enum):
    PERSISTENT_VOLUME_CLAIM = "persistent_volume_claim"
    EMPTY_DIR = "empty_dir"
    EPHEMERAL = "ephemeral"
    SHARED_VOLUME = "shared_volume"


class ServiceType(Enum):
    EXTERNAL_NAME = "ExternalName"
    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class Volume(Shape):
    volume_type: VolumeType
    name: str
    mount_path: str
    spec: Optional[dict[str, Any]] = None


class Resources(Shape):
    cpu: Optional[Quantity] = None
    mem: Optional[Quantity] = None
    gpu: Optional[Quantity] = None
    disk: Optional[Quantity] = None


class Env(Shape):
    name: Annotated[str, Field(min_length=1)]
    value: str


class NodeSelector(Shape):
    key: str
    value: str


class Toleration(Shape):
    key: Optional[str] = None
    operator: Optional[str] = None
    value: Optional[str] = None
    effect: Optional[str] = None
    toleration_seconds: Optional[int] = None


class Affinity(Shape):
    """The three branches; what is below them is Kubernetes' own and is checked there."""

    node_affinity: Optional[dict[str, Any]] = None
    pod_affinity: Optional[dict[str, Any]] = None
    pod_anti_affinity: Optional[dict[str, Any]] = None


class Source(BaseModel):
    """`spec.source` of a function; what a newer platform adds to it is kept."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    source: Optional[str] = None
    handler: Optional[str] = None
    init_function: Optional[str] = None
    code: Optional[str] = None
    base64: Optional[str] = None
    lang: Optional[str] = None

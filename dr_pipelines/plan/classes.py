"""What is known of storage classes: whether their bytes are at hand, how long they must be kept, what they cost.

Minimum days and hours are the services' own (AWS: "Understanding object storage class", "Archive retrieval options";
Azure: "Access tiers for blob data"). Prices are rough list prices of one large region in US dollars, for comparing: the
plan's `prices` override them. Requests and network traffic are not in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StoreKind = Literal["s3", "azure"]


@dataclass(frozen=True)
class StorageClass:
    """`name` is the service's own. `minimum_days`: what goes earlier is charged until then. `offline`: bytes must be
    recalled before they can be read, which takes up to `hours`, or `urgent_hours` where the service can hurry.
    `keep` a GB and month, `read` and `urgent_read` a GB, in US dollars."""

    kind: StoreKind
    name: str
    keep: float
    read: float = 0.0
    urgent_read: float = 0.0
    minimum_days: int = 0
    offline: bool = False
    hours: float = 0.0
    urgent_hours: float = 0.0


_CLASSES = (
    StorageClass("s3", "STANDARD", 0.023),
    StorageClass("s3", "STANDARD_IA", 0.0125, 0.01, 0.01, minimum_days=30),
    StorageClass("s3", "ONEZONE_IA", 0.01, 0.01, 0.01, minimum_days=30),
    StorageClass("s3", "GLACIER_IR", 0.004, 0.03, 0.03, minimum_days=90),
    StorageClass(
        "s3", "GLACIER", 0.0036, 0.01, 0.03, minimum_days=90, offline=True, hours=5, urgent_hours=5 / 60
    ),  # Flexible Retrieval; Expedited is not promised for the whole of a large backup at once
    StorageClass(
        "s3", "DEEP_ARCHIVE", 0.00099, 0.02, 0.02, minimum_days=180, offline=True, hours=12, urgent_hours=12
    ),  # has no Expedited
    StorageClass("azure", "Hot", 0.018),
    StorageClass("azure", "Cool", 0.01, 0.01, 0.01, minimum_days=30),
    StorageClass("azure", "Cold", 0.0036, 0.03, 0.03, minimum_days=90),
    StorageClass(
        "azure", "Archive", 0.002, 0.02, 0.1, minimum_days=180, offline=True, hours=15, urgent_hours=1
    ),  # high priority may take longer for blobs over 10 GB
)

ORDINARY: dict[StoreKind, str] = {"s3": "STANDARD", "azure": "Hot"}
"""What an object is in when nothing is said; `ObjectInfo.storage_class` is then None."""


def classes_of(kind: StoreKind) -> tuple[StorageClass, ...]:
    """The ordinary one first, the coldest last."""
    return tuple(found for found in _CLASSES if found.kind == kind)


def storage_class(kind: StoreKind, name: str | None) -> StorageClass | None:
    """None for the name is the ordinary class; None is returned for a name that the service does not have."""
    wanted = name or ORDINARY[kind]
    return next((found for found in classes_of(kind) if found.name == wanted), None)

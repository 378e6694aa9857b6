"""Blobs of the archive tier are read from a copy, which the service makes in hours.

A copy under another name leaves the archived blob as it is, lock and tier included. It lies at `rehydrated/<key>` in
the same container, where no listing shows it. It goes with its original; the first recall of each process removes the
others once they are older than a week.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from azure.storage.blob import RehydratePriority, StandardBlobTier

from dr_pipelines.errors import AccessDenied, ObjectLocked, ObjectNotFound, ObjectOffline
from dr_pipelines.storage.azure_container import AzureContainer, Head
from dr_pipelines.storage.base import Availability

FOLDER = "rehydrated/"
KEPT = timedelta(days=7)


class AzureArchive:
    """Rehydrated copies in one container."""

    def __init__(self, container: AzureContainer) -> None:
        self._container = container
        self._is_swept = False

    def state(self, key: str, head: Head) -> Availability:
        if not head.is_archived:
            return Availability.ONLINE
        if head.properties.archive_status:  # somebody moves the blob itself
            return Availability.ARRIVING
        try:
            copy = self._container.head(FOLDER + key)
        except ObjectNotFound:
            return Availability.OFFLINE
        return _state_of_copy(head, copy)

    def readable(self, key: str, head: Head) -> str:
        """Under which name the bytes can be read now. Raises `ObjectOffline`."""
        if not head.is_archived:
            return key
        if self.state(key, head) is Availability.ONLINE:
            return FOLDER + key
        raise self.offline(key)

    def offline(self, key: str) -> ObjectOffline:
        return ObjectOffline(
            f"{self._container.name}: {key} is in the archive tier: it must be recalled first, which takes hours",
            hint="`dr restore --wait` and `dr files restore --wait` ask for it; `dr store recall` too.",
        )

    def recall(self, key: str, head: Head, *, urgent: bool) -> Availability:
        found = self.state(key, head)
        if found is Availability.ARRIVING and urgent and not head.properties.archive_status:
            self._hurry(key)
        if found is not Availability.OFFLINE:
            return found
        self._sweep(head.now)
        with self._container.told(key):
            self._container.blob(FOLDER + key).start_copy_from_url(
                self._container.source(key),
                standard_blob_tier=StandardBlobTier.HOT,
                rehydrate_priority=RehydratePriority.HIGH if urgent else RehydratePriority.STANDARD,
            )
        return self.state(key, head)

    def _hurry(self, key: str) -> None:
        """What was asked for without haste can be hurried while it is under way."""
        copy = self._container.head(FOLDER + key).properties
        if copy.archive_status and copy.rehydrate_priority != RehydratePriority.HIGH.value:
            with self._container.told(key):
                self._container.blob(FOLDER + key).set_standard_blob_tier(
                    StandardBlobTier.HOT, rehydrate_priority=RehydratePriority.HIGH
                )

    def drop(self, key: str) -> None:
        """Remove the copy, if there is one. A copy that the container's default policy has locked stays."""
        with suppress(ObjectNotFound, ObjectLocked), self._container.told(key):
            self._container.blob(FOLDER + key).delete_blob()

    def _sweep(self, now: datetime | None) -> None:
        if self._is_swept or now is None:
            return
        self._is_swept = True  # whatever comes of it: what is left costs a little, a restore must not wait for it
        with suppress(AccessDenied), self._container.told(FOLDER):
            for blob in self._container.client.list_blobs(name_starts_with=FOLDER):
                if blob.last_modified < now - KEPT:
                    self.drop(blob.name.removeprefix(FOLDER))


def _state_of_copy(head: Head, copy: Head) -> Availability:
    if copy.properties.last_modified < head.properties.last_modified:
        return Availability.OFFLINE  # of what lay under this key before
    if copy.properties.copy.status == "pending" or copy.is_archived:
        return Availability.ARRIVING
    return Availability.ONLINE if copy.properties.size == head.properties.size else Availability.OFFLINE

"""Where a restore puts tablespaces, and how much. Pure: the old locations, which a live server may use, stay unseen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dr_pipelines.errors import UsageError
from dr_pipelines.postgres.backup_manifest import ManifestFile
from dr_pipelines.repository.manifest import Tablespace

_MAPPING = re.compile(r"\A((?:[^=\\]|\\.)+)=((?:[^=\\]|\\.)+)\Z", re.DOTALL)


def parse_mapping(texts: Sequence[str]) -> dict[str, Path]:
    """`OLD=NEW` as `pg_basebackup --tablespace-mapping` takes it: a `=` within a path is written `\\=`."""
    found: dict[str, Path] = {}
    for text in texts:
        match = _MAPPING.match(text)
        if match is None:
            raise UsageError(
                f"not a tablespace mapping: {text!r}",
                hint="write --tablespace-mapping OLD=NEW, with `\\=` for a = within a path.",
            )
        old, new = (part.replace("\\=", "=") for part in match.groups())
        found[old] = Path(new).absolute()
    return found


def default_folder(target_dir: Path) -> Path:
    return target_dir.with_name(f"{target_dir.name}_tablespaces")


def new_locations(
    tablespaces: Sequence[Tablespace], asked: Mapping[str, Path], target_dir: Path
) -> dict[Tablespace, Path]:
    """Each tablespace's new directory: as `asked` by its old location or its oid, else below
    `<target_dir>_tablespaces`. Raises `UsageError` for a tablespace that there is not and for directories that
    collide."""
    known = {text for space in tablespaces for text in (str(space.oid), space.location)}
    unknown = [old for old in asked if old not in known]
    if unknown:
        there = ", ".join(f"{space.oid} at {space.location}" for space in tablespaces) or "none"
        raise UsageError(f"the backup has no tablespace {unknown[0]}", hint=f"its tablespaces are: {there}.")
    folder = default_folder(target_dir)
    found = {
        space: (asked.get(str(space.oid)) or asked.get(space.location) or folder / str(space.oid)).absolute()
        for space in tablespaces
    }
    places = [target_dir.absolute(), *found.values()]
    for number, place in enumerate(places):
        for other in places[:number]:
            if place.is_relative_to(other) or other.is_relative_to(place):
                raise UsageError(
                    f"{place} and {other} lie within each other",
                    hint="give the data directory and each tablespace a directory of its own.",
                )
    return found


def bytes_by_place(
    files: Iterable[ManifestFile], locations: Mapping[Tablespace, Path], base_dir: Path
) -> dict[Path, int]:
    """How many bytes of `files` go to each tablespace's new directory, and to `base_dir`."""
    places = {str(space.oid): location for space, location in locations.items()}
    found: Counter[Path] = Counter()
    for file in files:
        top, _, rest = file.path.partition("/")
        place = places.get(rest.partition("/")[0]) if top == "pg_tblspc" else None
        found[place or base_dir] += file.size
    return dict(found)

"""The same data sets from the Hugging Face hub, through `datasets`: plain parquet files, never remote code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from gainrag.errors import DataError, require
from gainrag.ingestion.files import format_of
from gainrag.ingestion.releases import Release


def entries(release: Release, split: str) -> Iterator[tuple[str, Any]]:
    """(where, entry) of a split on the hub, downloaded into the cache of `datasets`.

    Raises:
        ConfigError: the extra is not installed.
        DataError: it cannot be downloaded (the hint names the official file to get instead), or a row has another form.
    """
    from gainrag.models.hub import unreachable_hub

    where = f"{release.hub} ({release.hub_splits[split]})"
    if host := unreachable_hub():
        raise _failed(release, split, where, f"{host} cannot be reached")
    require("ingest", "datasets")
    import datasets

    try:
        rows = datasets.load_dataset(release.hub, release.config, split=release.hub_splits[split])
    except Exception as error:  # what the hub's client, its network library and pyarrow raise has no common base
        raise _failed(release, split, where, str(error).strip().split("\n")[0][:200] or type(error).__name__) from error
    for number, row in enumerate(rows, 1):
        place = f"{where}: row {number}"
        try:
            shaped = release.row(row)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"the row has another form ({type(error).__name__}: {error})"
            raise DataError(what, where=place, hint=_instead(release, split)) from None
        try:
            yield place, msgspec.convert(shaped, release.entry)
        except msgspec.ValidationError as error:
            raise DataError(str(error), where=place, hint=format_of(release)) from None


def _failed(release: Release, split: str, where: str, why: str) -> DataError:
    return DataError(f"cannot be downloaded: {why}", where=where, hint=_instead(release, split))


def _instead(release: Release, split: str) -> str:
    return f"get {release.files[split]} from {release.origin} and give it, or its folder, as --source"

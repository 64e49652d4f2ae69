"""What the workers of a version know, by the files of its shelf."""

from pathlib import Path

from newshelf.serving.segments import SegmentShape, read_current, read_segment
from newshelf.store.items import ItemColumns, ItemWrite

Published = dict[str, dict[str, object]]


def published(folder: Path, shape: SegmentShape) -> tuple[Published, set[str]]:
    """Return the columns of the products in the segments, and the ids that they remove."""
    current = read_current(folder)
    products: Published = {}
    removed: set[str] = set()
    for name in current.segments if current else ():
        segment = read_segment(folder, name, shape)
        for item in segment.removed:
            products.pop(item, None)
        removed |= {*segment.removed}
        for row, item in enumerate(segment.columns["id"]):
            products[str(item)] = {key: values[row] for key, values in segment.columns.items()}
            removed.discard(str(item))
    return products, removed


def product(item_id: str, picture: bytes | Path | None = None, **fields: object) -> ItemWrite:
    return ItemWrite(
        ItemColumns.model_validate({"id": item_id, "title": "jade ring", **fields}), picture
    )

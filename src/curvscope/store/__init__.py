"""Files that appear whole or not at all, and are checked when they are read."""

from curvscope.store.files import RESTORE, Draft, checksum, is_draft, read_json, read_tensors, remove, remove_drafts, write_text
from curvscope.store.records import Record, Records
from curvscope.store.tiles import Tiles

__all__ = [
    "RESTORE",
    "Draft",
    "Record",
    "Records",
    "Tiles",
    "checksum",
    "is_draft",
    "read_json",
    "read_tensors",
    "remove",
    "remove_drafts",
    "write_text",
]

"""Files that appear whole or not at all, and are checked when they are read."""

from curvscope.store.files import (
    RESTORE,
    Draft,
    checksum,
    draft_beside,
    is_draft,
    put_in_place,
    read_json,
    read_tensors,
    remove,
    remove_drafts,
    synchronise,
    synchronise_folder,
    write_text,
)
from curvscope.store.records import Record, Records
from curvscope.store.seals import check_mark, new_mark, read_sealed_tensors, sealed, unsealed, write_tensors
from curvscope.store.tiles import Tiles
from curvscope.store.untrusted import check_folder, checked_name, open_plain, parsing, printable, read_plain, shown

__all__ = [
    "RESTORE",
    "Draft",
    "Record",
    "Records",
    "Tiles",
    "check_folder",
    "check_mark",
    "checked_name",
    "checksum",
    "draft_beside",
    "is_draft",
    "new_mark",
    "open_plain",
    "parsing",
    "printable",
    "put_in_place",
    "read_json",
    "read_plain",
    "read_sealed_tensors",
    "read_tensors",
    "remove",
    "remove_drafts",
    "sealed",
    "shown",
    "synchronise",
    "synchronise_folder",
    "unsealed",
    "write_tensors",
    "write_text",
]

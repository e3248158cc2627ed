"""Files that appear whole or not at all, and are checked when they are read."""

from curvscope.store._files import (
    RESTORE,
    Draft,
    checksum,
    draft_beside,
    is_draft,
    put_in_place,
    raise_if_full,
    read_json,
    read_tensors,
    remove,
    remove_drafts,
    synchronise,
    synchronise_folder,
    write_text,
)
from curvscope.store._lock import LOCK, Lock
from curvscope.store._manifest import MANIFEST
from curvscope.store._records import Record, Records
from curvscope.store._run import CERTIFYING, SOLVING, Run, check_can_be_made, usable_path
from curvscope.store._saved import ROOMS, Saved, is_saved, read_saved
from curvscope.store._seals import check_mark, new_mark, read_sealed_tensors, sealed, unsealed, write_tensors
from curvscope.store._tiles import METADATA, Tiles
from curvscope.store._untrusted import check_folder, checked_name, open_plain, parsing, printable, read_plain, shown

__all__ = [
    "CERTIFYING",
    "LOCK",
    "MANIFEST",
    "METADATA",
    "RESTORE",
    "ROOMS",
    "SOLVING",
    "Draft",
    "Lock",
    "Record",
    "Records",
    "Run",
    "Saved",
    "Tiles",
    "check_can_be_made",
    "check_folder",
    "check_mark",
    "checked_name",
    "checksum",
    "draft_beside",
    "is_draft",
    "is_saved",
    "new_mark",
    "open_plain",
    "parsing",
    "printable",
    "put_in_place",
    "raise_if_full",
    "read_json",
    "read_plain",
    "read_saved",
    "read_sealed_tensors",
    "read_tensors",
    "remove",
    "remove_drafts",
    "sealed",
    "shown",
    "synchronise",
    "synchronise_folder",
    "unsealed",
    "usable_path",
    "write_tensors",
    "write_text",
]

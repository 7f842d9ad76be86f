"""Block, the unit that crosses every border; what makes one of another; its rows' headers."""

from cdc.block.block import (
    CREATE,
    DELETE,
    ENTRY_BYTES,
    MESSAGE,
    READ,
    STREAMED,
    TRUNCATE,
    UPDATE,
    Block,
    EncodedBlock,
    Fragment,
    Row,
    Transaction,
    decode_block,
    find_entries,
    key_hash,
    may_hold,
)
from cdc.block.derived import Derived, NewRow
from cdc.block.headers import RowHeaders

__all__ = [
    "CREATE",
    "DELETE",
    "ENTRY_BYTES",
    "MESSAGE",
    "READ",
    "STREAMED",
    "TRUNCATE",
    "UPDATE",
    "Block",
    "Derived",
    "EncodedBlock",
    "Fragment",
    "NewRow",
    "Row",
    "RowHeaders",
    "Transaction",
    "decode_block",
    "find_entries",
    "key_hash",
    "may_hold",
]

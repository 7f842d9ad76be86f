"""Bytes that nobody meant: the decoder gives a block or its documented error, nothing else.

``CDC_FUZZ_SEED`` replays a run, ``CDC_FUZZ_SECONDS`` lengthens it.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from cdc.block import Block
from cdc.errors import DecodeError, RecordError
from cdc.postgres.pgoutput import Decoder, Frame
from tests.postgres import wire
from tests.postgres.wire import decoder, describer, recorded

SECONDS = float(os.environ.get("CDC_FUZZ_SECONDS", "3"))
SEED = int(os.environ.get("CDC_FUZZ_SEED", time.time_ns() % 2**32))

# One table with every kind of loader there is, by its type's oid.
TYPES = [
    16, 17, 18, 19, 20, 21, 23, 25, 26, 28, 114, 142, 600, 650, 700, 701, 774, 790, 829, 869, 1000,
    1007, 1009, 1014, 1042, 1043, 1082, 1083, 1114, 1115, 1182, 1184, 1186, 1231, 1266, 1560, 1562,
    1700, 2950, 2951, 3220, 3614, 3802, 3807, 3904, 3906, 3908, 3910, 3912, 3926,
]  # fmt: skip
SAMPLES = [
    None, b"", b"t", b"1", b"-1", b"1.50", b"NaN", b"infinity", b"-infinity", b"2020-01-01",
    b"2020-01-01 00:00:00", b"2020-01-01 00:00:00+00", b"0044-03-15 00:00:00 BC", b"12:00:00",
    b"24:00:00", b"12:00:00+05:30", b"{}", b"{1,2}", b'{NULL,"a\\"b"}', b"{{1},{2}}", b"{", b"}",
    b"[1,2)", b"empty", b"\\x00ff", b"\\x0", b"$1.00", b"1 year 2 mons -3 days 04:05:06.7",
    b'{"a":1}', b"[1", b"(1,2)", b"101", b"\xff\xfe", b"9" * 400, b"{" * 300,
    b"00000000-0000-0000-0000-000000000000", b"0/16B3748", b"'a':1",
]  # fmt: skip


@pytest.fixture
def dice() -> random.Random:
    print(f"CDC_FUZZ_SEED={SEED}")
    return random.Random(SEED)


def decodes(reader: Decoder, frames: list[Frame]) -> bool:
    """Whether it gave a block; anything but the documented errors ends the test."""
    try:
        block = reader.decode(frames, 0)
    except (DecodeError, RecordError):
        return False
    # integers are not looked at: a server's own digits go into JSON as they are
    assert isinstance(block, Block)
    return True


def test_whole_and_truncated_byte_by_byte() -> None:
    describe = describer()
    for major in (12, 18):
        before: list[Frame] = []
        for step in recorded(major).values():
            for number, (lsn, payload) in enumerate(step):
                cuts = range(len(payload)) if len(payload) < 300 else range(0, len(payload), 41)
                for cut in cuts:
                    frames = [*before, *step[:number], (lsn, payload[:cut])]
                    with pytest.raises((DecodeError, RecordError)):
                        decoder(describe).decode(frames, 0)
            assert decodes(decoder(describe), [*before, *step])
            before += [frame for frame in step if frame[1][:1] == b"R"]


def mutated(payload: bytes, dice: random.Random) -> bytes:
    data = bytearray(payload)
    for _ in range(dice.choice([1, 1, 2, 5])):
        way, place = dice.randrange(5), dice.randrange(len(data) + 1)
        if way == 0 and place < len(data):
            data[place] = dice.randrange(256)
        elif way == 1 and place < len(data):
            data[place] ^= 1 << dice.randrange(8)
        elif way == 2:
            del data[place : place + dice.randrange(1, 9)]
        elif way == 3:
            data[place:place] = dice.randbytes(dice.randrange(1, 9))
        else:
            data[place:] = dice.choice([b"\xff" * 8, b"\0" * 8, b"", bytes(data[:place])])
    return bytes(data)


def test_mutated_frames(dice: random.Random) -> None:
    describe, steps = describer(), list(recorded(18).values())
    relations = [f for step in steps for f in step if f[1][:1] == b"R"]
    end, counts = time.monotonic() + SECONDS, [0, 0]
    while time.monotonic() < end:
        frames = [*relations, *dice.choice(steps), *dice.choice(steps)]
        for _ in range(dice.choice([1, 1, 1, 3])):
            victim = dice.randrange(len(frames))
            way = dice.randrange(8)
            if way == 0:
                frames.insert(dice.randrange(len(frames)), frames[victim])
            elif way == 1 and len(frames) > 1:
                del frames[victim]
            else:
                frames[victim] = (frames[victim][0], mutated(frames[victim][1], dice))
        counts[decodes(decoder(describe if way < 6 else None), frames)] += 1
    assert min(counts) > 20, counts


def test_random_bytes(dice: random.Random) -> None:
    end = time.monotonic() + SECONDS / 3
    while time.monotonic() < end:
        tag = dice.choice([b"B", b"C", b"O", b"R", b"Y", b"I", b"U", b"D", b"T", b"M", b""])
        noise = (dice.randrange(2**63), tag + dice.randbytes(dice.randrange(40)))
        decodes(decoder(), [noise])
        decodes(decoder(), [(1, wire.begin(9)), noise])


def test_values_of_every_type(dice: random.Random) -> None:
    """A value that its type never has is null, a failed record or its own text; no crash."""
    columns = [("id", 23), *[(f"c{oid}", oid) for oid in TYPES]]
    head = [(1, wire.begin(9)), (0, wire.relation(7, "t", columns, "f"))]
    end, counts = time.monotonic() + SECONDS, [0, 0]
    while time.monotonic() < end:
        values = []
        for _ in columns:
            sample = dice.choice(SAMPLES)
            if sample and dice.random() < 0.3:
                sample = mutated(sample, dice)
            values.append(sample)
        values[0] = b"1"
        counts[decodes(decoder(), [*head, (2, wire.insert(7, values))])] += 1
    assert counts[True], "no row came through"

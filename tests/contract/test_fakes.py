"""The scripted sink itself: what the runtime's tests rely on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cdc.api import SinkContext
from cdc.block import Block
from cdc.errors import SinkRejected, SinkUnavailable
from tests.blocks import INT32, Source
from tests.fakes import Crash, Fault, Memory, ScriptedSink


def put_and_flush(sink: ScriptedSink, block: Block) -> None:
    sink.put(block)
    sink.flush(block.offsets[-1] + 1)


def one_block() -> Block:
    shop = Source()
    shop.insert(shop.table("items", id=INT32), id=1)
    return shop.block()


def test_a_scripted_sink_rejects_and_is_unavailable_when_told() -> None:
    memory = Memory()
    sink = ScriptedSink(memory, [Fault("put", 1, "reject"), Fault("put", 2, "fail")])
    with pytest.raises(SinkRejected, match="Change the script"):
        sink.put(one_block())
    with pytest.raises(SinkUnavailable) as caught:
        sink.put(one_block())
    assert caught.value.retry_after_s > 0
    put_and_flush(sink, one_block())
    assert len(memory.lines) == 1


def test_a_fault_after_the_write_leaves_the_write_done() -> None:
    for kind, error in (("fail_after_write", SinkUnavailable), ("crash_after_write", Crash)):
        memory = Memory()
        sink = ScriptedSink(memory, [Fault("flush", 1, kind)])  # type: ignore[arg-type]
        sink.put(one_block())
        with pytest.raises(error):
            sink.flush(1)
        assert (len(memory.lines), memory.offset) == (1, 1)
        put_and_flush(ScriptedSink(memory), one_block())
        assert len(memory.lines) == 1


def test_a_failed_put_leaves_nothing_pending() -> None:
    memory = Memory()
    sink = ScriptedSink(memory, [Fault("put", 1, "fail_after_write")])
    with pytest.raises(SinkUnavailable):
        sink.put(one_block())
    put_and_flush(sink, one_block())
    assert len(memory.lines) == 1


def test_a_held_call_waits_until_it_is_let_go() -> None:
    fault = Fault("put", 1, "hold")
    sink = ScriptedSink(Memory(), [fault, Fault("flush", 1, "slow", seconds=0.01)])
    sink.start(SinkContext("x", Path()))
    thread = threading.Thread(target=put_and_flush, args=(sink, one_block()))
    thread.start()
    assert fault.reached.wait(5)
    assert not sink.memory.lines
    fault.go_on.set()
    thread.join(5)
    assert len(sink.memory.lines) == 1


def test_an_at_least_once_target_doubles_what_was_not_acknowledged() -> None:
    memory = Memory()
    put_and_flush(ScriptedSink(memory, keeps_offset=False), one_block())
    put_and_flush(ScriptedSink(memory, keeps_offset=False), one_block())
    assert len(memory.lines) == 2

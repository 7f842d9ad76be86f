"""The file sink: whole lines only, exactly once, whatever is killed when."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, Self

import orjson
import pytest

from cdc.api import SinkContext
from cdc.block import Block
from cdc.errors import ConfigError, SinkRejected, SinkUnavailable
from sinks import file, search
from sinks.file import FileSinkTask
from tests.blocks import INT32, STRING, Source
from tests.forks import Fork, Tell

CONTEXT = SinkContext("files", Path())


def task_of(path: Path, **options: Any) -> FileSinkTask:
    return FileSinkTask(file.CONFIG.parse({"file": str(path), "format": "value", **options}))


def started(path: Path, **options: Any) -> FileSinkTask:
    task = task_of(path, **options)
    task.start(CONTEXT)
    return task


def blocks(count: int, rows: int = 1, text: str = "x") -> list[Block]:
    shop = Source()
    table = shop.table("t", id=INT32, note=STRING)
    made = []
    for b in range(count):
        for r in range(rows):
            shop.insert(table, id=b * rows + r, note=text)
        made.append(shop.block())
    return made


def ids(*paths: Path) -> list[int]:
    return [
        orjson.loads(line)["after"]["id"]
        for path in paths
        for line in path.read_bytes().splitlines()
    ]


def test_a_restart_cuts_what_no_flush_has_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    one, two = blocks(2)
    task = started(path)
    task.put(one)
    task.flush(1)
    task.put(two)
    assert ids(path) == [0, 1]
    os.truncate(path, path.stat().st_size - 3)  # a crash in the middle of a write
    task.stop()
    task = started(path)
    assert ids(path) == [0]
    assert task.stored_offset() == 1
    task.put(two)
    task.flush(2)
    task.stop()
    assert ids(path) == [0, 1]


class Follower:
    """Reads a growing file in a thread, as ``tail -F`` would: up to the last newline."""

    def __init__(self, path: Path) -> None:
        self.path, self.text, self.looks = path, b"", 0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._enough.set()
        self._thread.join()

    def _follow(self) -> None:
        with self.path.open("rb", buffering=0) as growing:
            while True:
                last = self._enough.is_set()
                found = growing.readall()
                whole = found.rfind(b"\n") + 1
                growing.seek(whole - len(found), os.SEEK_CUR)
                self.text += found[:whole]
                self.looks += 1
                if last:
                    return


def test_a_reader_beside_it_finds_every_line_whole_and_once(tmp_path: Path) -> None:
    """Up to the last newline, while blocks much longer than a page are appended and rotated."""
    path = tmp_path / "out"
    task = started(path, **{"file.rotate.bytes": 20_000_000})
    made = blocks(30, rows=1000, text="y" * 400)
    with Follower(path) as reader:
        for block in made:
            task.put(block)
            task.flush(block.offsets[-1] + 1)
            assert path.read_bytes()[-1:] in (b"\n", b"")  # at rest it ends with a line
    task.stop()
    (rotated,) = tmp_path.glob("out.0*")
    assert reader.looks > 30
    assert reader.text == rotated.read_bytes()
    assert [orjson.loads(line)["after"]["id"] for line in reader.text.splitlines()] == ids(rotated)
    assert ids(rotated, path) == list(range(30_000))


def test_lines_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out"
    path.parent.mkdir()
    path.write_bytes(b'{"after":{"id":-1}}\n')
    task = started(path)
    task.put(blocks(1)[0])
    task.stop()
    task = started(path)
    assert ids(path) == [-1]
    task.stop()


def test_a_file_that_has_shrunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    task = started(path)
    task.put(blocks(1)[0])
    task.flush(1)
    task.stop()
    path.write_bytes(b"")
    with pytest.raises(SinkRejected, match="0 bytes but had"):
        started(path)


@pytest.mark.parametrize("moved", [True, False])
def test_a_file_that_goes_while_it_is_written_is_noticed(tmp_path: Path, moved: bool) -> None:
    path = tmp_path / "out"
    one, two = blocks(2)
    task = started(path)
    task.put(one)
    task.flush(1)
    path.rename(tmp_path / "elsewhere")
    if not moved:
        path.write_bytes(b"")  # as logrotate's "create" does
    task.flush(1)  # nothing was written that could be lost
    task.put(two)
    with pytest.raises(SinkRejected, match=r"removed or replaced .* file\.rotate\.bytes"):
        task.flush(2)
    assert task.stored_offset() == 1
    task.stop()
    (tmp_path / "elsewhere").rename(path)
    task = started(path)
    task.put(two)
    task.flush(2)
    task.stop()
    assert ids(path) == [0, 1]


def test_files_rotate_by_size_and_never_lose_a_line(tmp_path: Path) -> None:
    path = tmp_path / "out"
    task = started(path, **{"file.rotate.bytes": 1500})
    for block in blocks(20):
        task.put(block)
        task.flush(block.offsets[-1] + 1)
    task.stop()
    rotated = sorted(tmp_path.glob("out.0*"))
    assert rotated[0].name == "out.000001"
    assert all(1500 <= p.stat().st_size < 3000 for p in rotated)
    assert ids(*rotated, path) == list(range(20))


def test_files_rotate_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000]
    monkeypatch.setattr(file, "_now_ms", lambda: now[0])
    path = tmp_path / "out"
    task = started(path, **{"file.rotate.ms": 1000})
    one, two, three = blocks(3)
    task.flush(0)
    now[0] += 5000  # an empty file does not age
    task.put(one)
    task.flush(1)
    now[0] += 900
    task.put(two)
    task.flush(2)
    assert not list(tmp_path.glob("out.0*"))
    now[0] += 100
    task.put(three)
    task.flush(3)
    assert ids(tmp_path / "out.000001") == [0, 1, 2]
    assert path.read_bytes() == b""
    task.stop()


@pytest.mark.parametrize("step", ["_save", "_finish_rotation", "_open", "_save again"])
def test_a_crash_at_any_step_of_a_rotation_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "out"
    task = started(path)
    one, two = blocks(2)
    task.put(one)
    task.flush(1)
    name, _, again = step.partition(" ")
    real, calls = getattr(task, name), [0]

    def crash(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == (2 if again else 1):
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(task, name, crash)
    with pytest.raises(KeyboardInterrupt):
        task._rotate()
    task.stop()
    task = started(path)
    assert task.stored_offset() == 1
    task.put(two)
    task.flush(2)
    task.stop()
    rotated = sorted(tmp_path.glob("out.0*"))
    assert ids(*rotated, path) == [0, 1]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    one, two = blocks(2)
    task = started(path)
    task.put(one)
    real = os.write

    def short(fd: int, data: Any) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[: len(data) - 20])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(SinkUnavailable, match="No space left"):
        task.put(two)
    assert ids(path) == [0]
    monkeypatch.undo()
    task.put(two)
    task.flush(2)
    task.stop()
    assert ids(path) == [0, 1]


def test_a_half_line_that_cannot_be_cut_is_cut_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    one, two = blocks(2)
    task = started(path, **{"file.rotate.bytes": "1"})
    task.put(one)
    real = os.write

    def short(fd: int, data: Any) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[: len(data) - 20])

    def broken(fd: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", short)
    monkeypatch.setattr(os, "ftruncate", broken)
    with pytest.raises(SinkUnavailable, match="No space left"):
        task.put(two)
    task.flush(1)
    assert not list(tmp_path.glob("out.0*"))  # a rotated file never has half a line
    monkeypatch.undo()
    task.put(two)
    assert ids(path) == [0, 1]
    task.flush(2)
    task.stop()
    assert ids(tmp_path / "out.000001") == [0, 1]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_for_the_state_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "out"
    (one,) = blocks(1)
    task = started(path)
    task.put(one)
    real = os.open

    def full(path: Any, flags: int, *mode: int) -> int:
        if str(path).endswith(".part"):
            raise OSError(code, os.strerror(code))
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(SinkUnavailable, match="Make room"):
        task.flush(1)
    assert task.stored_offset() is None
    monkeypatch.undo()
    task.flush(1)
    task.stop()
    assert started(path).stored_offset() == 1


def test_files_are_their_owners_alone_unless_somebody_opens_them(tmp_path: Path) -> None:
    path, state = tmp_path / "out", tmp_path / "out.state.json"
    one, two = blocks(2)
    task = started(path, **{"file.rotate.bytes": "1"})
    task.put(one)
    assert (path.stat().st_mode & 0o777, state.stat().st_mode & 0o777) == (0o600, 0o600)
    path.chmod(0o640)
    task.flush(1)
    task.put(two)
    task.stop()
    assert [p.stat().st_mode & 0o777 for p in (path, tmp_path / "out.000001")] == [0o640] * 2


def test_two_tasks_do_not_share_a_file(tmp_path: Path) -> None:
    task = started(tmp_path / "out")
    with pytest.raises(SinkUnavailable, match="another process"):
        started(tmp_path / "out")
    task.stop()
    started(tmp_path / "out").stop()


def test_a_place_that_cannot_be_written_is_a_wrong_setting(tmp_path: Path) -> None:
    task = task_of(tmp_path / "folder")
    (tmp_path / "folder").mkdir()  # since the configuration was looked at
    with pytest.raises(ConfigError, match="cannot be written"):
        task.start(CONTEXT)
    with pytest.raises(ConfigError, match="Missing required"):
        file.CONFIG.parse({})


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", b'{"version":2,"x":1}'])
def test_a_state_that_is_damaged_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "out").write_bytes(b"kept")
    (tmp_path / "out.state.json").write_bytes(content)
    with pytest.raises(SinkRejected, match=r"out\.state\.json is damaged: .*Restore it"):
        started(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"kept"


def test_what_cannot_be_a_file_is_an_invalid_value_and_nothing_is_started(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").touch()
    for name, said in (
        ("a\0b", "no NUL byte"), ("folder", "is a folder"), ("taken/out", "taken is no folder"),
        ("x" * 300, "too long"), ("", "is a folder"),
    ):  # fmt: skip
        for definition, key in ((file.CONFIG, "file"), (search.CONFIG, "search.file")):
            with pytest.raises(ConfigError, match=rf"{key}.*{said}"):
                definition.parse({key: f"{tmp_path}/{name}"})


def test_a_state_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.state.json").write_bytes(b'{"version":99}')
    with pytest.raises(ConfigError, match="newer"):
        started(tmp_path / "out")


def feed(tell: Tell, path: Path, made: list[Block]) -> None:
    """From where the file says that it is; to be killed at any moment."""
    task = started(path, **{"file.rotate.bytes": 200_000})
    at = task.stored_offset() or 0
    tell("up")
    for n, block in enumerate(made):
        if block.offsets[-1] < at:
            continue
        task.put(block)
        if n % 3 == 0:
            task.flush(block.offsets[-1] + 1)
    task.flush(8_000)


@pytest.mark.slow
def test_killed_at_random_it_holds_every_line_once(tmp_path: Path) -> None:
    path = tmp_path / "out"
    made = blocks(160, rows=50, text="y" * 200)
    killed = 0
    for attempt in range(11):
        with Fork(feed, path, made) as fork:
            assert fork.hear() == "up"
            time.sleep(0.013 * attempt)
            killed += fork.kill() == -signal.SIGKILL
    assert killed > 3
    with Fork(feed, path, made) as fork:
        assert fork.end() == 0
    rotated = sorted(tmp_path.glob("out.0*"))
    assert len(rotated) > 5
    assert ids(*rotated, path) == list(range(8_000))

"""What a capture leaves on disk: a whole state or the old one, for nobody else to read."""

from __future__ import annotations

import errno
import logging
import resource
import stat
from pathlib import Path

import pytest

from cdc.api import Batch, Lane, LogState
from cdc.capture.engine import LineTarget
from cdc.capture.output import Output
from cdc.capture.state import CaptureState, StateFolder
from cdc.cli.capture import open_output
from cdc.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


def test_a_short_write_leaves_the_old_state(folder: StateFolder) -> None:
    old = CaptureState(LogState(1, stream_position={"lsn": 1}))
    folder.save(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            folder.save(CaptureState(LogState(2, stream_position={"lsn": 2})))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder.load() == old
    folder.close()


def test_rows_are_for_nobody_else_to_read(tmp_path: Path) -> None:
    Output(str(tmp_path / "rows")).close()
    assert stat.S_IMODE((tmp_path / "rows").stat().st_mode) == 0o600


def test_a_state_that_cannot_be_written_is_said_once_and_so_is_its_end(
    folder: StateFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = Output(str(tmp_path / "rows"))
    target = LineTarget(None, output, folder, CaptureState())  # type: ignore[arg-type]
    target.append(Batch(Lane.STREAM, {"lsn": 1}, None, False))

    def refuse(_: CaptureState) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "save", refuse)
        for _ in range(3):
            target.checkpoint()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert target.durable() == {}
    target.checkpoint()
    assert "can be written again" in caplog.text
    assert target.durable() == {Lane.STREAM: {"lsn": 1}}
    output.close()
    folder.close()


@pytest.mark.parametrize(
    ("name", "said"), [("a\0b", "no NUL byte"), ("", "is a folder"), ("file/out", "is no folder")]
)
def test_an_output_that_cannot_be_a_file_is_named(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"^--output: .*{said}"):
        open_output(f"{tmp_path}/{name}", CaptureState(), keep=False)

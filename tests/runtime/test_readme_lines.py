"""The README's pages on the journal, line by line, beside one worker: each does what it says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cdc.__main__ import main
from tests.fix_postgres import Database
from tests.guard import guarded
from tests.runtime.workers import Worker, environment, eventually
from tests.test_readme import BLOCKS, REQUESTS, TEXT

PAGES = (
    "What was this row?", "Audit a table", "Keep a search index fresh",
    "Replay after a bug in my consumer", "My disk is filling up", "I lost the slot",
)  # fmt: skip
LAST_PAGE = "Upgrade, back up, start over"
SHOP = """
CREATE TABLE customers (id int PRIMARY KEY, name text, email text);
CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric(10,2));
CREATE TABLE lines (order_id int, line int, product text, PRIMARY KEY (order_id, line));
INSERT INTO customers VALUES (1, 'Ann Smith', 'ann@example.org'), (2, 'New York, Berlin', 'b@c.d');
INSERT INTO orders VALUES (17, 'C++ (50%) off', 10), (42, 'first', 12.50);
INSERT INTO lines VALUES (17, 3, 'cake'), (42, 3, 'pie');
"""
CHANGES = """
UPDATE orders SET total = 2000 WHERE id IN (17, 42);
UPDATE lines SET product = 'apple cake' WHERE line = 3;
"""
LSN, TIME = re.compile(r"0/1[6A][0-9A-F]{5}"), re.compile(r"2026-0[13]-\d\dT12:00:00Z")


def page(title: str) -> str:
    text: str = TEXT.split(f"\n## {title}\n")[1].partition("\n## ")[0]
    return text


def lines(title: str) -> list[str]:
    """A page's commands and requests, in order: in its blocks, and those with arguments in text."""
    found = re.findall(r"^(?:cdc|curl) .*$|`(?:cdc|curl) \w+ [^`]+`", page(title), re.MULTILINE)
    assert found, title
    return [line.strip("`") for line in found]


class Newcomer:
    """Types the lines as they are printed, but for what is of his machine."""

    def __init__(self, worker: Worker, shop: Database, capsys: pytest.CaptureFixture[str]) -> None:
        self.worker, self.shop, self._capsys = worker, shop, capsys
        self.lsn = self.time = self.offset = ""
        self.typed: list[str] = []

    def type(self, line: str) -> str:
        """One line; what is printed. It succeeds, and has something to say."""
        self.typed.append(line)
        line = TIME.sub(self.time, LSN.sub(self.lsn, line)).replace("OFFSET", self.offset)
        line = line.replace("/var/lib/cdc", str(self.worker.folder)).replace("NAME", "shop")
        line = line.replace("/backup/", f"{self.worker.folder}/backup/")
        shell = ["sh", "-c", f"printf '%s\\0' {line}"]
        told = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
        words = told.split("\0")[:-1]
        if words[0] == "curl":
            return self._request(words)
        if words[:3] == ["cdc", "tail", "--follow"]:
            return self._follow(words)
        code = main(words[1:])
        shown = self._capsys.readouterr()
        assert code == 0, f"{line}: {shown.err}"
        assert shown.out or "--output" in words, line
        return shown.out

    def _request(self, words: list[str]) -> str:
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        kind = words[words.index("-H") + 1].removeprefix("Content-Type: ") if "-H" in words else ""
        data = words[words.index("-d") + 1].encode() if "-d" in words else None
        path = urlsplit(f"http://{words[-1]}").path
        answer = self.worker(method, path, raw=data, kind=kind)
        assert answer.status in {200, 202, 204}, answer.text
        return answer.text

    def _follow(self, words: list[str]) -> str:
        """It goes on until Ctrl-C."""
        command = [sys.executable, "-m", *words]
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, text=True
        ) as process:
            guarded(process)
            assert process.stdout is not None
            line = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        return line


@pytest.fixture
def machine(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder he is in, with keys and passwords; /var/lib/cdc and /etc/cdc, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CDC_DATA_DIR", str(tmp_path / "data"))
    key = "a-key-of-at-least-thirty-two-bytes-of-length"
    (tmp_path / "keys.properties").write_text(f"audit={key}")
    (tmp_path / "audit.key").write_text(f"{key}\n")
    for name in ("PGPASSWORD", "COPY_PASSWORD"):
        monkeypatch.setenv(name, urlsplit(database.dsn).password or "")
    return tmp_path


@pytest.fixture
def newcomer(
    machine: Path, database: Database, copy_database: Database, start: Callable[..., Worker],
    capsys: pytest.CaptureFixture[str],
) -> Newcomer:  # fmt: skip
    """With a shop, and the README's own connectors in a worker."""
    database.execute(SHOP)
    server = urlsplit(database.dsn)
    own = {
        "shop": {
            "database.hostname": server.hostname, "database.port": str(server.port),
            "database.user": server.username, "database.dbname": database.name,
            "slot.name": f"slot_{database.name}",
        },
        "copy": {
            "connection.url": f"jdbc:postgresql://{server.hostname}:{server.port}/{copy_database.name}",
            "connection.user": server.username,
        },
    }  # fmt: skip
    worker = start()
    for text in (block for language, block in BLOCKS if language == "json"):
        body = json.loads(re.sub("/(?:var/lib|etc)/cdc", str(machine), text))
        worker.create({"name": body["name"], **body["config"], **own.get(body["name"], {})})
    return Newcomer(worker, database, capsys)


def copied(copy_database: Database, table: str = "orders") -> list[tuple[Any, ...]]:
    if not copy_database.execute("SELECT to_regclass(%s)", [table])[0][0]:
        return []
    return copy_database.execute(f"SELECT * FROM {table} ORDER BY 1")


def position(worker: Worker, name: str) -> int:
    found = worker("GET", f"/connectors/{name}/offsets").body["offsets"]
    return int(found[0]["offset"]["kafka_offset"]) if found else 0


def sell(newcomer: Newcomer, copy_database: Database) -> None:
    """In somebody's name, as the README has it; until all sinks have it."""
    shop, worker = newcomer.shop, newcomer.worker
    eventually(lambda: copied(copy_database) and copied(copy_database) == copied(shop))
    (said,) = (text for language, text in BLOCKS if language == "python" and "audit.set" in text)
    with shop.connect(autocommit=False) as connection:
        exec(said, {"connection": connection})
        connection.execute(CHANGES.encode())
    eventually(lambda: copied(copy_database) == copied(shop))
    end = position(worker, "copy")
    eventually(lambda: position(worker, "audit") == position(worker, "find") == end)
    newcomer.offset = str(end)
    found = newcomer.type("cdc history orders 42 --json").splitlines()
    newest = json.loads(found[-1])
    newcomer.lsn, newcomer.time = newest["lsn"], newest["time"]


def test_every_line_of_the_pages_on_the_journal_does_what_it_says(
    newcomer: Newcomer, copy_database: Database, tmp_path: Path
) -> None:
    worker, shop = newcomer.worker, newcomer.shop
    sell(newcomer, copy_database)
    told = json.loads(newcomer.type("cdc audit verify audit.db --key-file audit.key --json"))
    assert told["noted_by_sink"] == told["records"]
    (tmp_path / "noted").write_text(f"{told['last_hash']}\n")
    said = {line: newcomer.type(line) for title in PAGES[:3] for line in lines(title)
            if "drop" not in line}  # fmt: skip
    whole = "\n".join(said.values())
    for text in ("12.5", "ann@example.org", "ticket 4711", "[Smith]", "[Berlin]", "[C]",
                 "the chain is whole", "records since the hash you gave: 0"):  # fmt: skip
        assert text in whole, text
    assert (tmp_path / "orders.parquet").stat().st_size > 0

    copy_database.execute("UPDATE orders SET total = 0")  # the bug
    for line in lines(PAGES[3]):
        newcomer.type(line)
    eventually(lambda: copied(copy_database) == copied(shop))
    assert copied(copy_database, "orders_v2") == copied(shop)
    assert copied(copy_database, "orders_check") == copied(shop)
    assert not copied(copy_database, "lines_check")
    assert copied(copy_database, "lines_v2") == copied(shop, "lines")

    worker("PUT", "/connectors/shop/stop")
    worker.until("shop", "STOPPED", "")
    eventually(lambda: "0 records behind" in newcomer.type("cdc status"))
    for line in lines(PAGES[4]):
        if "drop" not in line:
            newcomer.type(line)

    shop.execute("SELECT pg_drop_replication_slot(%s)", [f"slot_{shop.name}"])
    worker("PUT", "/connectors/shop/resume")
    worker.until("shop", "RUNNING", "FAILED")
    assert "is gone" in worker.trace("shop")
    for line in lines(PAGES[5]):
        newcomer.type(line)
    worker.until("shop", "RUNNING", "RUNNING")
    shop.execute("INSERT INTO orders VALUES (99, 'last', 1)")
    eventually(lambda: copied(copy_database) == copied(shop))

    elsewhere = {*newcomer.typed, *lines(LAST_PAGE)}
    for line in (*REQUESTS, *(line for title in PAGES for line in lines(title))):
        if line not in elsewhere:
            newcomer.type(line)
    left = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s"
    assert shop.execute(left, [f"slot_{shop.name}"]) == []


def test_the_lines_for_a_backup_and_a_new_start_do_what_they_say(
    newcomer: Newcomer, copy_database: Database, tmp_path: Path, start: Callable[..., Worker]
) -> None:
    worker, shop = newcomer.worker, newcomer.shop
    eventually(lambda: copied(copy_database) and copied(copy_database) == copied(shop))
    for name in ("audit", "find"):
        assert worker("DELETE", f"/connectors/{name}").status == 204
    source = tmp_path / "shop.json"
    source.write_text(json.dumps(worker("GET", "/connectors/shop").body))
    backup, verify, drop, run, stop, delete, resume = lines(LAST_PAGE)
    assert "segments copied" in newcomer.type(backup)
    assert "no damage" in newcomer.type(verify)

    newcomer.type(drop)
    worker.end()
    shop.execute("UPDATE orders SET note = 'meanwhile' WHERE id = 17")
    (worker.data / "journal" / "shop").rename(tmp_path / "else")
    assert run.split("#")[0].split() == ["cdc", "run", source.name]
    newcomer.worker = start(source)
    newcomer.worker.until("copy", "RUNNING", "FAILED")
    for line in (stop, delete, resume):
        newcomer.type(line)
    eventually(lambda: copied(copy_database) == copied(shop))

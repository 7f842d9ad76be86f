"""``cdc audit`` and ``cdc search``, as people and programs use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdc.__main__ import main
from tests.blocks import INT32, STRING, Source
from tests.contract.targets import AuditTarget, SearchTarget
from tests.sinks.audited import KINDS, Audited, fill
from tests.unchanged import unchanged


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Audited:
    """An empty target."""
    return Audited(request.param, tmp_path / "audit", lambda: request.getfixturevalue("database"))


@pytest.fixture
def audited(store: Audited) -> str:
    """The name of a target with three records on the command line; of Parquet they are sealed."""
    fill(store.target(**{"audit.parquet.rows": "2"}))
    return store.name


def test_query_filters(audited: str, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(*options: str) -> list[tuple[str, str]]:
        assert main(["audit", "query", audited, "--json", *options]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [(record["table_name"], record["op"]) for record in found]

    order, person, change = ("public.orders", "c"), ("public.people", "c"), ("public.orders", "u")
    assert ask() == [order, person, change]
    assert ask("--table", "orders", "--key", "17") == [order, change]
    assert ask("--table", "public.people", "--key", '{"id":17}') == [person]
    assert ask("--who", "ann") == [order, person]
    assert ask("--since", "2023-11-14T22:25:02") == [change]
    assert ask("--until", "2023-11-14T23:25:01+01:00") == [order, person]
    assert ask("--key", "1") == []
    assert ask("--key", '{"id":"17"}', "--who", "ann") == [order, person]
    assert ask("--key", "id=17", "--table", "people") == [person]
    assert main(["audit", "query", audited, "--who", "ann"]) == 0
    assert 'insert public.orders {"id":17}  by ann, 4711' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--table", "ordes"], "no record is of a table ordes. Did you mean public.orders?"),
        (["--table", "public.order"], "Did you mean public.orders or"),
        (["--key", "abc"], "id: 'abc' is no integer"),
        (["--table", "people", "--key", "1.5"], "id: '1.5' is no integer"),
        (["--key", '{"id":1.5}'], "id: 1.5 is no integer"),
        (["--key", '{"id":'], '{"id": is not JSON'),
        (["--key", '{"idd":3}'], "id is missing: the key of public.orders is id. Give id=…"),
        (["--key", '{"id":17,"b":1}'], "b is not in the key"),
        (["--table", "people", "--key", "x", "--who", "nobody"], "id: 'x' is no integer"),
        (["--since", "soon"], "'soon' is no time"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(AuditTarget(f"jdbc:sqlite:{tmp_path}/a.db"))
    with unchanged(tmp_path):
        assert main(["audit", "query", str(tmp_path / "a.db"), *options]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


def test_keys_of_several_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Source()
    lines = source.table("lines", key=["order_id", "line"], order_id=INT32, line=STRING)
    source.insert(lines, order_id=1, line="a,b")
    source.insert(lines, order_id=1, line="c")
    fill(AuditTarget(f"jdbc:sqlite:{tmp_path}/a.db"), source)

    def ask(key: str) -> int:
        code = main(["audit", "query", str(tmp_path / "a.db"), "--json", "--key", key])
        shown = capsys.readouterr()
        assert (code == 0) == (shown.err == "")
        return len(shown.out.splitlines()) if code == 0 else -code

    assert ask("order_id=1,line=a,b") == 1
    assert ask('{"line":"c","order_id":1}') == 1
    assert ask("order_id=2,line=c") == 0
    assert ask("1") == -2
    assert ask("order_id=1") == -2


def test_verify_a_whole_chain(audited: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", audited, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["ok"], body["records"], body["table"]) == (True, 3, "audit")
    assert main(["audit", "verify", audited, "--last-hash", body["last_hash"]]) == 0
    assert "the chain is whole" in capsys.readouterr().out
    assert main(["audit", "verify", audited, "--last-hash", "0" * 63 + "1"]) == 1
    assert "last known hash" in capsys.readouterr().out
    for typo in ("zzz", body["last_hash"][:-1], "1d26e92a…"):
        assert main(["audit", "verify", audited, "--last-hash", typo]) == 2
        assert "Give all of its 64 hex digits" in capsys.readouterr().err
    assert main(["audit", "verify", audited, "--table", "audti"]) == 2
    assert "Did you mean audit?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("""UPDATE audit SET after = '{"id":17}' WHERE seq = 2""", "record 2 was altered"),
        ("UPDATE audit SET who = 'eve' WHERE seq = 1", "record 1 was altered"),
        ("DELETE FROM audit WHERE seq = 2", "record 2 is missing"),
        ("DELETE FROM audit WHERE seq = 3", "tail was removed"),
        ("UPDATE audit SET seq = seq + 10", "a gap"),
        ("DROP TABLE audit", "the table was dropped: 3 records were there"),
        ("ALTER TABLE audit RENAME COLUMN who TO whoever", "the table is damaged, or was altered"),
    ],
)
def test_verify_finds_what_was_changed_by_hand(
    store: Audited, capsys: pytest.CaptureFixture[str], statement: str, problem: str
) -> None:
    fill(store.target())
    store.execute(statement)
    with unchanged(store.path):
        assert main(["audit", "verify", store.name]) == 1
    assert problem in capsys.readouterr().out
    assert main(["audit", "verify", store.name, "--json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert (body["ok"], body["table"]) == (False, "audit")
    assert problem in body["problem"]


def test_a_removed_parquet_file_is_a_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(AuditTarget(f"parquet:{tmp_path}/audit", **{"audit.parquet.rows": "2"}))
    sealed = list((tmp_path / "audit" / "audit").iterdir())
    assert len(sealed) == 1
    sealed[0].unlink()
    assert main(["audit", "verify", str(tmp_path / "audit")]) == 1
    assert "removed" in capsys.readouterr().out


def test_keys_come_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(AuditTarget(f"jdbc:sqlite:{tmp_path}/a.db", **{"audit.hash.key": "right"}))
    target = str(tmp_path / "a.db")
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("right\n")
    wrong.write_text("cmlnaHQ==\n")
    assert main(["audit", "verify", target, "--key-file", str(right)]) == 0
    assert main(["audit", "verify", target, "--key-file", str(wrong)]) == 2
    said = capsys.readouterr().err
    assert "another key was given" in said
    assert "name=value" not in said
    wrong.write_text("audit.hash.key=right\n")
    assert main(["audit", "verify", target, "--key-file", str(wrong)]) == 2
    assert "The key looks like name=value: give the value alone" in capsys.readouterr().err
    assert main(["audit", "verify", target]) == 2
    assert "--key-file is needed" in capsys.readouterr().err
    assert main(["audit", "verify", target, "--key-file", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("target", ["none.db", "folder", "postgresql://nobody@127.0.0.1:1/x"])
def test_targets_that_are_none(
    tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    name = target if "://" in target else str(tmp_path / target)
    assert main(["audit", "verify", name]) in (1, 2)
    assert "error: " in capsys.readouterr().err


# --- search ---


@pytest.fixture
def index(tmp_path: Path) -> str:
    target = SearchTarget(tmp_path)
    fill(target)
    return str(target.path)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["cake"], ["orders"]),
        (["pie"], []),
        (["jose"], ["people"]),
        (["cake OR smith"], ["orders", "people"]),
        (["appl*"], ["orders"]),
        (['"new york"'], ["people"]),
        (["Smith-Jones, (New", "--literal"], ["people"]),
        (["17", "--table", "people"], ["people"]),
        (["17", "--limit", "1"], ["orders"]),
    ],
)
def test_search_finds(
    index: str, words: list[str], keys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", index, *words, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(hit["table"].partition(".")[2] for hit in found) == keys
    assert all(hit["key"] == "17" and hit["score"] < 0 for hit in found)


def test_search_shows_a_snippet(index: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", index, "cake"]) == 0
    assert "apple [cake]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("smith-jones", "position 7"),
        ("(smith", "at its end"),
        ('"smith', "position 1: unterminated string"),
        ("a & b", "position 3"),
        ("smith AND", "at its end"),
    ],
)
def test_a_query_with_a_fault_is_explained(
    index: str, query: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with unchanged(Path(index)):
        assert main(["search", index, query]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "--literal" in shown


def test_search_refuses(index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", index, "x", "--table", "poeple"]) == 2
    assert "Did you mean people?" in capsys.readouterr().err
    assert main(["search", str(tmp_path / "none.db"), "x"]) == 2
    (tmp_path / "text").write_text("no index")
    assert main(["search", str(tmp_path / "text"), "x"]) == 2
    for limit in ("0", "9" * 20):
        assert main(["search", index, "x", "--limit", limit]) == 2
    capsys.readouterr()
    for words in (["  "], ["", "--literal"]):
        assert main(["search", index, *words]) == 2
        assert "there is no word in the query" in capsys.readouterr().err

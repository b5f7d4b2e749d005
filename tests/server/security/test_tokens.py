"""Tokens: what proves somebody, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from splitpipe.server.security import ROLES, Tokens, may
from splitpipe.server.security import tokens as module
from splitpipe.server.state import Database, open_database
from splitpipe.server.state.tables import tokens as table


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(f"sqlite:///{tmp_path / 'state.sqlite'}") as opened:
        yield opened


def test_a_token_proves_its_owner(database: Database) -> None:
    tokens = Tokens(database)
    made, text = tokens.create("me", role="run")
    assert tokens.check(text) == made
    assert getattr(Tokens(database).check(text), "id", None) == made.id
    assert tokens.list()[0].name == "me"


def test_it_has_256_random_bits_and_is_stored_nowhere(database: Database, tmp_path: Path) -> None:
    tokens = Tokens(database)
    _, text = tokens.create("me", role="run")
    tokens.check(text)
    assert len(text.split("_", 2)[2]) * 6 >= 256
    database.close()
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert text.encode() not in content
        assert text.split("_", 2)[2].encode() not in content


@pytest.mark.parametrize("change", ["", "sp_", "x" * 10_000, "sp_" + "0" * 16 + "_" + "A" * 43])
def test_what_is_no_token(database: Database, change: str) -> None:
    tokens = Tokens(database)
    tokens.create("me", role="run")
    assert tokens.check(change) is None


def test_every_other_text_is_wrong(database: Database) -> None:
    tokens = Tokens(database)
    _, text = tokens.create("me", role="admin")
    for place in range(len(text)):
        wrong = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert tokens.check(wrong) is None
    assert tokens.check(text + "A") is None
    assert tokens.check(text[:-1]) is None
    assert tokens.check(text) is not None


def test_one_that_is_deleted_is_worth_nothing_at_once(database: Database) -> None:
    tokens = Tokens(database)
    made, text = tokens.create("me", role="run")
    assert tokens.check(text) is not None
    assert tokens.delete(made.id)
    assert tokens.check(text) is None
    assert tokens.remembered(text) is None
    assert not tokens.delete(made.id)


def test_it_expires(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(database)
    made, text = tokens.create("me", role="run", expires_in_s=100.0)
    assert tokens.check(text) == made
    monkeypatch.setattr(module, "now_s", lambda: made.created_at + 99.0)
    assert tokens.check(text) is not None
    assert made.expires_at == made.created_at + 100.0
    monkeypatch.setattr(module, "now_s", lambda: made.created_at + 100.0)
    assert tokens.remembered(text) is None
    assert tokens.check(text) is None


def test_when_it_was_used_is_told_to_a_minute(database: Database) -> None:
    tokens = Tokens(database)
    made, text = tokens.create("me", role="run")
    tokens.check(text)
    used = tokens.list()[0].last_used_at
    assert used is not None
    assert used >= made.created_at
    Tokens(database).check(text)
    assert tokens.list()[0].last_used_at == used


def test_what_is_remembered_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    tokens = Tokens(database)
    texts = [tokens.create(str(number), role="read")[1] for number in range(4)]
    assert all(tokens.check(text) for text in texts)
    assert len(tokens._right) <= 2


def test_a_hash_is_unlike_its_token(database: Database) -> None:
    _, text = Tokens(database).create("me", role="run")
    with database.read() as connection:
        stored = connection.execute(select(table.c.hash)).scalar_one()
    assert Tokens(database).check(stored) is None
    assert stored not in text


def test_the_order_of_roles() -> None:
    allowed = {(has, needs) for has in (None, *ROLES) for needs in ROLES if may(has, needs)}
    assert allowed == {
        ("read", "read"),
        ("run", "read"),
        ("run", "run"),
        ("admin", "read"),
        ("admin", "run"),
        ("admin", "admin"),
    }

"""Tokens, and the file in which a server keeps their hashes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer.testing

from gradwire_server.access.callers import Access, TokenFile
from gradwire_server.access.tokens import (
    ADMIN,
    COMPUTE,
    TokenError,
    TokenSet,
    new_token,
    read_tokens,
    write_tokens,
)
from gradwire_server.cli.app import app
from gradwire_server.errors import Forbidden, Unauthenticated


def shown(text: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "test"), ("authorization", f"Bearer {text}")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


class TestAToken:
    def test_is_found_by_its_text_alone(self) -> None:
        token, text = new_token("laptop")
        other, _ = new_token("other")
        assert TokenSet((other, token)).find(text) is token

    @pytest.mark.parametrize("change", ["", "x", "cut", "id", "long", "case"])
    def test_is_not_found_by_anything_else(self, change: str) -> None:
        token, text = new_token("laptop")
        other = {
            "": "",
            "x": text[:-1] + ("A" if text[-1] != "A" else "B"),
            "cut": text[:-1],
            "id": text[:3] + ("0" * 8 if token.id != "0" * 8 else "1" * 8) + text[11:],
            "long": text + "A",
            "case": text.swapcase(),
        }[change]
        assert TokenSet((token,)).find(other) is None

    def test_leaves_no_secret_in_its_file(self, path: Path) -> None:
        token, text = new_token("laptop")
        write_tokens(path, TokenSet((token,)))
        assert text.split("_", 2)[2] not in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize(
        "bad",
        [
            {"name": ""},
            {"name": "a b"},
            {"tenant": "a/b"},
            {"scopes": ["all"]},
            {"scopes": []},
            {"age": "3"},
            {"age": "0d"},
            {"calls": 0},
        ],
    )
    def test_is_refused_where_an_argument_makes_no_sense(self, bad: dict[str, object]) -> None:
        with pytest.raises(TokenError):
            new_token(**{"name": "laptop", **bad})  # type: ignore[arg-type]


class TestAFile:
    def test_gives_back_what_was_written(self, path: Path) -> None:
        tokens = TokenSet(
            (
                new_token("laptop", "alice", [COMPUTE, ADMIN], "90d", calls=4, held_bytes=1 << 30)[0],
                new_token("ci")[0],
            )
        )
        write_tokens(path, tokens)
        assert read_tokens(path) == tokens

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"tokens": [{}]}', '{"tokens": [1]}', "\xff"])
    def test_that_is_something_else_is_refused_by_its_name(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="latin-1")
        with pytest.raises(TokenError, match=r"tokens\.json"):
            read_tokens(path)

    @pytest.mark.parametrize("field", ["hash", "scopes", "name", "expires", "surplus"])
    def test_with_a_damaged_entry_is_refused(self, path: Path, field: str) -> None:
        write_tokens(path, TokenSet((new_token("laptop", age="1d")[0],)))
        content = json.loads(path.read_text())
        content["tokens"][0][field] = "2026-01-01T00:00:00" if field == "expires" else "?"
        path.write_text(json.dumps(content))
        with pytest.raises(TokenError):
            read_tokens(path)

    def test_that_others_may_write_to_is_refused(self, path: Path) -> None:
        write_tokens(path, TokenSet((new_token("laptop")[0],)))
        path.chmod(0o622)
        with pytest.raises(TokenError, match="chmod 600"):
            read_tokens(path)

    def test_holds_one_token_of_a_name(self) -> None:
        tokens = TokenSet((new_token("laptop")[0],))
        with pytest.raises(TokenError, match="laptop"):
            tokens.added(new_token("laptop")[0])


class TestARunningServer:
    def test_refuses_a_revoked_token_and_takes_a_new_one(self, path: Path) -> None:
        now = [0.0]
        first, first_text = new_token("first")
        write_tokens(path, TokenSet((first,)))
        access = Access(TokenFile(path, lambda: now[0]))
        assert access.caller(shown(first_text), {}).tenant == "first"
        second, second_text = new_token("second", "alice")
        write_tokens(path, TokenSet((second,)))
        now[0] = 1.5
        with pytest.raises(Unauthenticated, match="unknown here"):
            access.caller(shown(first_text), {})
        assert access.caller(shown(second_text), {}).tenant == "alice"

    @pytest.mark.parametrize("end", ["absent", "damaged"])
    def test_keeps_its_tokens_when_the_file_is(self, path: Path, end: str) -> None:
        now = [0.0]
        token, text = new_token("laptop")
        write_tokens(path, TokenSet((token,)))
        access = Access(TokenFile(path, lambda: now[0]))
        if end == "absent":
            path.unlink()
        else:
            path.write_text("{")
        now[0] = 1.5
        assert access.caller(shown(text), {}).name == "laptop"

    def test_refuses_an_expired_token_and_says_when_that_was(self, path: Path) -> None:
        token, text = new_token("laptop", age="1h")
        gone = replace(token, expires=datetime.now(UTC) - timedelta(seconds=1))
        write_tokens(path, TokenSet((gone,)))
        with pytest.raises(Unauthenticated, match="expired on"):
            Access(TokenFile(path)).caller(shown(text), {})

    def test_holds_a_tenant_to_the_least_limits_of_its_tokens(self, path: Path) -> None:
        made = [
            new_token("a", "alice", calls=4, held_bytes=100),
            new_token("b", "alice", calls=2),
            new_token("c", "alice"),
            new_token("d", "bob"),
        ]
        write_tokens(path, TokenSet(tuple(token for token, _ in made)))
        access = Access(TokenFile(path))
        callers = [access.caller(shown(text), {}) for _, text in made]
        assert [(one.calls, one.held_bytes) for one in callers] == [(2, 100)] * 3 + [(None, None)]

    def test_refuses_what_the_scopes_do_not_allow(self, path: Path) -> None:
        token, text = new_token("laptop")
        write_tokens(path, TokenSet((token,)))
        access = Access(TokenFile(path))
        assert access.caller(shown(text), {}, COMPUTE).name == "laptop"
        with pytest.raises(Forbidden, match="compute, not admin"):
            access.caller(shown(text), {}, ADMIN)

    @pytest.mark.parametrize(
        "metadata",
        [
            [],
            [("authorization", "")],
            [("authorization", "Basic abc")],
            [("authorization", "Bearer")],
            [("authorization", b"Bearer \xff")],
            [("authorization", "Bearer a"), ("authorization", "Bearer b")],
        ],
    )
    def test_says_what_it_asks_for(self, path: Path, metadata: list[tuple[str, str | bytes]]) -> None:
        write_tokens(path, TokenSet((new_token("laptop")[0],)))
        with pytest.raises(Unauthenticated, match=r"token|Bearer"):
            Access(TokenFile(path)).caller(metadata, {})

    def test_knows_a_tenant_by_its_certificate_where_it_asks_for_no_token(self) -> None:
        access = Access(None, certificates=True)
        assert access.caller([], {"x509_common_name": [b"alice"]}).tenant == "alice"
        with pytest.raises(Unauthenticated, match="common name"):
            access.caller([], {})


class TestTheCommand:
    def run(self, *arguments: str) -> typer.testing.Result:
        return typer.testing.CliRunner().invoke(app, ["token", *arguments])

    def test_makes_lists_and_revokes(self, path: Path) -> None:
        made = self.run("new", "laptop", "--tenant", "alice", "--expires", "4w", "--file", str(path))
        text = made.stdout.strip()
        found = read_tokens(path).find(text)
        assert found is not None and found.tenant == "alice"
        listed = self.run("list", "--file", str(path)).stdout
        assert "laptop, tenant alice, compute, expires" in listed and text not in listed
        assert self.run("revoke", "laptop", "--file", str(path)).exit_code == 0
        assert read_tokens(path).find(text) is None

    def test_says_in_a_line_what_is_wrong(self, path: Path) -> None:
        said = self.run("revoke", "laptop", "--file", str(path))
        assert said.exit_code == 1 and "cannot be read" in said.stderr and "Traceback" not in said.stderr

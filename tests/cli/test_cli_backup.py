"""`tracker backup` writes what `tracker restore` brings back, secrets included; and nothing is lost by accident."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tracker import wiring
from tracker.services.forms import EndpointForm
from tracker.settings import Settings
from tracker.store import db
from tracker.store.dumping import without_password
from tracker.wiring import Services

Register = Callable[..., dict[str, Any]]


def tasks(cli: Any) -> set[str]:
    return {str(g["task_id"]) for g in cli.json("list")["data"]}


@pytest.fixture
def secret(services: Services) -> tuple[str, str]:
    """An endpoint's id and its webhook secret."""
    project_id = services.keys.project().project_id
    made = services.endpoints.create(project_id, EndpointForm(url="http://127.0.0.1:9/hook"))
    return str(made.id), services.endpoints.secret(project_id, made.id)


@pytest.fixture
def elsewhere(settings: Settings, empty_database_url: str) -> Iterator[Services]:
    """The services on the database that is restored into, with the same keys."""
    built = wiring.build(settings.changed(database_url=SecretStr(empty_database_url)))
    yield built
    built.close()


def test_a_backup_is_restored_into_an_empty_database(
    cli: Any, registered: Register, elsewhere: Services, empty_database_url: str, secret: tuple[str, str]
) -> None:
    made = registered("task-1")
    told = cli.json("backup", "-o", "kept.tar")
    file = cli.folder / "kept.tar"
    assert (told["size"], stat.S_IMODE(file.stat().st_mode)) == (file.stat().st_size, 0o600)
    assert "exists already" in cli("backup", "-o", "kept.tar", code=1).stderr
    assert [path.name for path in cli.folder.iterdir()] == ["kept.tar"]
    there = {"TRACKER_DATABASE_URL": empty_database_url}
    assert "kept.tar is restored, at schema 0" in cli("restore", "kept.tar", variables=there).stdout
    assert [path.name for path in cli.folder.iterdir()] == ["kept.tar"]
    assert made["id"] in cli("list", variables=there).stdout
    project_id = elsewhere.keys.project().project_id
    stored = elsewhere.credentials.get(project_id, "default").api_key
    assert stored is not None
    assert elsewhere.vault.decrypt(stored) == "sk-provider-secret"
    [endpoint], _ = elsewhere.endpoints.page(project_id, None, 10)
    assert (str(endpoint.id), elsewhere.endpoints.secret(project_id, endpoint.id)) == secret


def test_what_is_there_is_replaced_only_when_told_and_only_while_nobody_works_on_it(
    cli: Any, services: Services, registered: Register
) -> None:
    registered("before")
    cli("backup", "-o", "kept.tar")
    registered("after")
    assert "is not empty" in cli("restore", "kept.tar", code=1).stderr
    with services.database.transaction() as tx:
        db.beat(tx, "tick", db.now(tx))
    assert "a tracker works on this database" in cli("restore", "kept.tar", "--replace", code=1).stderr
    assert tasks(cli) == {"before", "after"}
    with psycopg.connect(services.settings.required("database_url")) as connection:
        connection.execute("UPDATE heartbeats SET at = at - interval '1 minute'")
    cli("restore", "kept.tar", "--replace")
    assert tasks(cli) == {"before"}


def test_a_restore_that_fails_changes_nothing(cli: Any, services: Services, registered: Register) -> None:
    registered("before")
    cli("backup", "-o", "kept.tar")
    registered("after")
    with psycopg.connect(services.settings.required("database_url")) as connection:
        connection.execute("CREATE VIEW of_somebody AS SELECT id FROM generations")
    assert "pg_restore failed" in cli("restore", "kept.tar", "--replace", code=1).stderr
    assert tasks(cli) == {"before", "after"}


def test_other_keys_and_other_files_are_refused_first(
    cli: Any, settings: Settings, registered: Register, empty_database_url: str
) -> None:
    registered("task-1")
    cli("backup", "-o", "kept.tar")
    other, there = Fernet.generate_key().decode(), {"TRACKER_DATABASE_URL": empty_database_url}
    refused = cli("restore", "kept.tar", code=2, variables=there | {"TRACKER_SECRET_KEYS": other}).stderr
    assert "its keys are not those of this backup" in refused
    assert other not in refused
    (cli.folder / "half.tar").write_bytes((cli.folder / "kept.tar").read_bytes()[:9000])
    (cli.folder / "text").write_text("no tar")
    for name in ("half.tar", "text"):
        assert "this is no backup of a tracker" in cli("restore", name, code=1, variables=there).stderr
    assert "cannot be read" in cli("restore", "nowhere.tar", code=1, variables=there).stderr
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    newer = f"{other},{settings.required('secret_keys')}"
    cli("restore", "kept.tar", variables=there | {"TRACKER_SECRET_KEYS": newer})


def test_a_backup_of_a_newer_version_is_refused(cli: Any, services: Services, empty_database_url: str) -> None:
    with psycopg.connect(services.settings.required("database_url")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    cli("backup", "-o", "kept.tar")
    refused = cli("restore", "kept.tar", code=1, variables={"TRACKER_DATABASE_URL": empty_database_url}).stderr
    assert "schema 9999, which this program does not know" in refused


def test_it_goes_through_pipes(cli: Any, registered: Register, empty_database_url: str) -> None:
    made = registered("task-1")

    def run(*arguments: str, send: bytes = b"", **variables: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "tracker.cli", *arguments], input=send, cwd=cli.folder, env=cli.environment | variables,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    packed = run("backup", "-o", "-")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = archive.getnames()
    assert names == ["README", "about.json", "secret-keys", "database.dump"]
    run("restore", "-", send=packed, TRACKER_DATABASE_URL=empty_database_url)
    assert made["id"] in cli("list", variables={"TRACKER_DATABASE_URL": empty_database_url}).stdout
    assert list(cli.folder.iterdir()) == []


def test_the_whole_address_is_used(cli: Any, services: Services) -> None:
    parts = urlsplit(services.settings.required("database_url"))
    query = f"host={parts.hostname}&port={parts.port}&application_name=of-the-address"
    address = urlunsplit(("postgresql", f"{parts.username}:{parts.password}@", parts.path, query, ""))
    cli("backup", "-o", "kept.tar", variables={"TRACKER_DATABASE_URL": address})
    assert (cli.folder / "kept.tar").stat().st_size > 10_000
    impossible = f"{services.settings.required('database_url')}?sslmode=verify-full&sslrootcert=/nowhere.crt"
    assert "cannot be reached" in cli("backup", code=1, variables={"TRACKER_DATABASE_URL": impossible}).stderr


@pytest.mark.parametrize(
    ("url", "plain", "password"),
    [
        ("postgresql://u:p%40ss@h:6000/d", "postgresql://u@h:6000/d", "p@ss"),
        ("postgres://u@h/d", "postgresql://u@h/d", None),
        (
            "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/ca.crt",
            "postgresql://u@h/d?sslmode=verify-full&sslrootcert=/ca.crt",
            "p",
        ),
        ("postgresql://u:p@/d?host=/run/pg&port=6000", "postgresql://u@/d?host=/run/pg&port=6000", "p"),
        ("postgresql:///d?host=/run/pg&password=p%26q", "postgresql:///d?host=/run/pg", "p&q"),
        ("postgresql+psycopg://u:p@[::1]:5/d", "postgresql://u@[::1]:5/d", "p"),
        ("postgresql://u:p@one:1,two:2/d", "postgresql://u@one:1,two:2/d", "p"),
    ],
)
def test_only_the_password_is_taken_from_an_address(url: str, plain: str, password: str | None) -> None:
    assert without_password(url) == (plain, password)

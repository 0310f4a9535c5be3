"""The home's files: private, kept, and never guessed at when they are damaged."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tracker.embedded import home
from tracker.embedded.fresh import remove
from tracker.errors import ConfigurationError, TrackerError
from tracker.settings import Settings


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def lodging(settings: Settings) -> Iterator[home.Lodging]:
    found = home.move_in(settings)
    yield found
    found.leave()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_an_existing_open_home_is_closed_and_its_secrets_too(settings: Settings) -> None:
    settings.home.mkdir(mode=0o755)
    lodging = home.move_in(settings)
    lodging.leave()
    home.with_secrets(settings, lodging.files)
    for path in (lodging.files.secrets, lodging.files.api_key):
        path.chmod(0o644)
    home.with_secrets(settings, lodging.files)
    assert [mode(path) for path in (settings.home, lodging.files.secrets, lodging.files.api_key)] == [
        0o700,
        0o600,
        0o600,
    ]


def test_generated_secrets_are_good_and_given_ones_are_left_alone(settings: Settings, lodging: home.Lodging) -> None:
    files = lodging.files
    made = home.with_secrets(settings.changed(flower_auth=SecretStr("me:mine")), files)
    assert Fernet(made.required("secret_keys")).decrypt(Fernet(made.required("secret_keys")).encrypt(b"x")) == b"x"
    assert made.required("flower_auth") == "me:mine"
    assert "me:mine" not in files.secrets.read_text()
    assert made.required("bootstrap_api_key") == files.api_key.read_text().strip()
    passwords, new = home.server_passwords(files)
    assert new
    assert home.server_passwords(files) == (passwords, False)
    assert home.with_secrets(settings, files).required("secret_keys") == made.required("secret_keys")


def test_a_home_can_be_held_once_and_again_when_it_was_left(settings: Settings, lodging: home.Lodging) -> None:
    lodging.write_state({"pid": 42, "urls": {"api": "http://127.0.0.1:8000"}})
    with pytest.raises(home.AlreadyRunningError, match=r"http://127.0.0.1:8000 \(process 42\)"):
        home.move_in(settings)
    lodging.leave()
    home.move_in(settings).leave()


def test_a_home_that_cannot_be_made_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"TRACKER_HOME.*choose a folder"):
        home.move_in(Settings(home=tmp_path / "file" / "home"))


def test_a_damaged_file_of_secrets_is_never_replaced(lodging: home.Lodging) -> None:
    files = lodging.files
    files.secrets.write_text('{"postgres_password": "half')
    with pytest.raises(TrackerError, match=r"secrets.json is damaged"):
        home.server_passwords(files)
    assert files.secrets.read_text() == '{"postgres_password": "half'


def test_one_database_of_an_earlier_home_is_kept(tmp_path: Path) -> None:
    for content in ("older", "newer"):
        (tmp_path / "postgres").mkdir()
        (tmp_path / "postgres" / content).touch()
        assert home.set_aside(tmp_path / "postgres") == tmp_path / "postgres.earlier"
    assert [path.name for path in (tmp_path / "postgres.earlier").iterdir()] == ["newer"]
    assert home.set_aside(tmp_path / "postgres") is None


def test_fresh_removes_our_files_and_nobody_elses(settings: Settings, lodging: home.Lodging) -> None:
    home.with_secrets(settings, lodging.files)
    (settings.home / "artifacts").mkdir()
    (settings.home / "letter.txt").write_text("mine")
    with pytest.raises(home.AlreadyRunningError):
        remove(settings)
    lodging.leave()
    remove(settings)
    assert [path.name for path in settings.home.iterdir()] == ["letter.txt"]
    (settings.home / "letter.txt").unlink()
    remove(settings)
    assert not settings.home.exists()
    assert remove(settings) == []

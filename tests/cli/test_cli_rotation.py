"""`tracker rotate-keys`: every stored secret under the newest key, and nothing lost with the older one."""

from __future__ import annotations

import json
from typing import Any

from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import text

from tracker import wiring
from tracker.services.forms import CredentialForm, EndpointForm
from tracker.store import credentials
from tracker.store.sealed import PAGE
from tracker.store.vault import Vault
from tracker.wiring import Services

ENDPOINTS = PAGE + 5


def _filled(services: Services) -> tuple[Any, list[Any]]:
    project = services.keys.project().project_id
    form = CredentialForm(providers=["luma"], base_url="https://relay.example", api_key=SecretStr("sk-of-a-provider"))
    services.credentials.put(project, "second", form)
    made = [
        services.endpoints.create(project, EndpointForm(url=f"https://a.example/{n}", headers={"X-Tenant": f"t{n}"}))
        for n in range(ENDPOINTS)
    ]
    return project, [endpoint.id for endpoint in made]


def test_all_secrets_come_under_the_newest_key_once(cli: Any, services: Services) -> None:
    project, endpoints = _filled(services)
    before = [services.endpoints.secret(project, key) for key in endpoints]
    old, new = services.settings.required("secret_keys"), Fernet.generate_key().decode()
    both = {"TRACKER_SECRET_KEYS": f"{new},{old}"}
    count = services.rotation.count()
    assert count >= 2 * ENDPOINTS + 1, "a secret and headers for each, and the provider's key"
    assert json.loads(cli("rotate-keys", "--json", variables=both).stdout) == {
        "resealed": count,
        "current": 0,
        "closed": 0,
    }
    assert json.loads(cli("rotate-keys", "--json", variables=both).stdout) == {
        "resealed": 0,
        "current": count,
        "closed": 0,
    }

    alone = wiring.build(services.settings.changed(secret_keys=SecretStr(new)), application="test")
    try:
        assert [alone.endpoints.secret(project, key) for key in endpoints] == before
        (found,) = [c for c in alone.credentials.all(project) if c.name == "second"]
        assert found.api_key is not None
        assert alone.vault.decrypt(found.api_key) == "sk-of-a-provider"
        with alone.database.transaction() as tx:
            hashes = alone.vault.look_up_hashes("sk-of-a-provider")
            assert [c.id for c in credentials.by_key_hash(tx, hashes)] == [found.id]
    finally:
        alone.close()


def test_hashes_are_rotated_with_their_own_key_and_never_made(cli: Any, services: Services) -> None:
    _filled(services)
    old, new = services.settings.required("secret_keys"), Fernet.generate_key().decode()
    both = Vault(f"{new},{old}")
    with services.database.transaction() as tx:
        change = "UPDATE credentials SET api_key = :secret, api_key_hash = :hash WHERE name = :name"
        sealed = {"secret": both.encrypt("sk"), "hash": Vault(old).look_up_hash("sk")}
        tx.execute(text(change), {"name": "second", **sealed})
        tx.execute(text(change), {"name": "default", **sealed, "hash": None})
    said = cli("rotate-keys", "--json", variables={"TRACKER_SECRET_KEYS": f"{new},{old}"})
    assert json.loads(said.stdout)["current"] == 1, "the one without a hash; the other's is with the older key"
    with services.database.transaction() as tx:
        hashes = {row.name: row.api_key_hash for row in tx.execute(text("SELECT name, api_key_hash FROM credentials"))}
    assert hashes == {"second": Vault(new).look_up_hash("sk"), "default": None}


def test_what_no_key_opens_is_named_and_left(cli: Any, services: Services) -> None:
    project, endpoints = _filled(services)
    before = services.endpoints.sealed()
    said = cli("rotate-keys", variables={"TRACKER_SECRET_KEYS": Fernet.generate_key().decode()}, code=1)
    assert "0 secrets are under the newest key now, 0 were before" in said.stdout
    assert f"{ENDPOINTS:,} in endpoints" in said.stderr
    assert "2 in credentials" in said.stderr
    assert services.endpoints.sealed() == before
    assert services.endpoints.secret(project, endpoints[0]).startswith("whsec_")


def test_a_fresh_key_is_one(cli: Any) -> None:
    key = cli("rotate-keys", "--fresh").stdout.strip()
    assert Vault(key).decrypt(Vault(key).encrypt("s")) == "s"


def test_one_key_alone_is_told_how_to_get_a_second(cli: Any, services: Services) -> None:
    _filled(services)
    said = cli("rotate-keys")
    assert "tracker rotate-keys --fresh" in said.stderr

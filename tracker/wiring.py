"""The composition root: every door calls `build` once per process, after any fork, and hands each room only what it uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tracker.bell import Bell, publisher
from tracker.core.addresses import Policy
from tracker.couriers.store import store_at
from tracker.errors import ConfigurationError
from tracker.net.fetch import Fetcher, Fetchers
from tracker.net.guard import GuardedSession
from tracker.net.post import Poster
from tracker.providers import REGISTRY
from tracker.services.aftermath import Aftermath
from tracker.services.artifacts import Artifacts
from tracker.services.asking import Asking
from tracker.services.credentials import Credentials
from tracker.services.crew import Crew
from tracker.services.deliveries import Deliveries
from tracker.services.delivery import Delivery
from tracker.services.downloading import LET_GO, Downloading
from tracker.services.dropin import DropInAnswers
from tracker.services.endpoints import Endpoints
from tracker.services.feed import Feed
from tracker.services.generations import Generations
from tracker.services.health import Health
from tracker.services.idempotency import Idempotency
from tracker.services.keeping import Keeping
from tracker.services.keys import Keys
from tracker.services.learning import Learning
from tracker.services.links import Links
from tracker.services.polling import Polling
from tracker.services.recording import Recording
from tracker.services.recovery import Recovery
from tracker.services.registration import Registration
from tracker.services.rotation import Rotation
from tracker.services.storing import Copies, remover
from tracker.services.upkeep import Upkeep
from tracker.settings import Settings
from tracker.store import due, sending
from tracker.store.db import Database
from tracker.store.vault import Vault


@dataclass(frozen=True)
class Services:
    """Every use case of the product, ready to be called."""

    settings: Settings
    database: Database
    vault: Vault
    bell: Bell
    registration: Registration
    generations: Generations
    artifacts: Artifacts
    deliveries: Deliveries
    endpoints: Endpoints
    credentials: Credentials
    keys: Keys
    feed: Feed
    idempotency: Idempotency
    health: Health
    polling: Polling
    delivery: Delivery
    downloading: Downloading
    keeping: Keeping
    upkeep: Upkeep
    crew: Crew
    rotation: Rotation
    dropin: DropInAnswers

    def stop(self) -> None:
        """This process will end soon: leave to others what takes long."""
        self.downloading.stop()
        self.keeping.stop()
        self.crew.stop()

    def close(self) -> None:
        """Finish what is being asked and sent, save what hangs, and give all connections back."""
        self.crew.close(LET_GO)
        self.delivery.close(LET_GO)
        self.bell.close()
        self.database.close()


def build(settings: Settings, *, application: str = "tracker", pool: int = 10) -> Services:
    """Wire everything from attached settings. `pool` bounds the database connections kept, for as many threads as work at once.

    Claims and the sending of webhooks have up to two more each, where they take place.
    Raises ConfigurationError for a secret that is missing or wrong, and for a provider that is not known; connects to nothing yet.
    """
    for provider in sorted(settings.accounts.keys() - REGISTRY.keys()):
        variables, known = f"TRACKER_{provider.upper().replace('-', '_')}_*", ", ".join(sorted(REGISTRY))
        raise ConfigurationError(
            variables, "names a provider that cannot be asked yet", f"leave it out; known are {known}"
        )
    database = Database(settings.required("database_url"), size=pool, application=application)
    sending_database = database.tuned(sending.SETTINGS, size=2)
    secret_keys = settings.required("secret_keys")
    vault = Vault(secret_keys)
    redis_url = settings.required("redis_url")
    broker_url = settings.broker_url.get_secret_value() if settings.broker_url else redis_url
    bell = Bell(publisher(broker_url), redis_url)
    policy = Policy.of(settings.reachable, settings.egress_ports)
    fetchers = Fetchers(lambda: Fetcher(policy))
    session: Callable[[], GuardedSession] = cache(lambda: GuardedSession(policy))
    store = store_at(settings.artifacts, settings.home.resolve() / "spool")
    price, longest, base_url = settings.poll_price, settings.poll_longest, settings.base_url
    learning = Learning(database, price=price)
    recording = Recording(database, bell, learning, base_url=base_url)
    recovery = Recovery(database, bell, kept=settings.deliveries_kept)
    return Services(
        settings=settings,
        database=database,
        vault=vault,
        bell=bell,
        registration=Registration(database, bell, policy, price=price, longest=longest, base_url=base_url),
        generations=Generations(database, bell, policy, price=price, base_url=base_url, remove=remover(store)),
        # The oldest key stays when newer ones are put in front: links outlive a rotation.
        artifacts=Artifacts(database, store, secret=secret_keys.split(",")[-1].strip(), base_url=base_url),
        deliveries=Deliveries(database, bell),
        endpoints=Endpoints(database, vault, bell, policy, recovery),
        credentials=Credentials(database, vault, bell, policy, fetchers, base_url=base_url),
        keys=Keys(database, vault),
        feed=Feed(database),
        idempotency=Idempotency(database),
        health=Health(database, bell),
        polling=Polling(
            database,
            bell,
            Asking(vault, fetchers),
            learning,
            recording,
            claiming=database.tuned(due.SETTINGS, size=2),
            price=price,
            longest=longest,
            slots=settings.workers_poll,
        ),
        delivery=Delivery(
            sending_database,
            vault,
            bell,
            lambda: Poster(policy),
            Aftermath(database, sending_database, bell, disable_after=settings.endpoint_disable_after),
        ),
        downloading=Downloading(
            database,
            bell,
            session=session,
            links=Links(database, vault, fetchers),
            store=store,
            copies=Copies(database, bell, store, base_url=base_url, by_content=settings.artifacts_by_content),
        ),
        keeping=Keeping(database, store, remover(store), by_content=settings.artifacts_by_content),
        upkeep=Upkeep(database, bell, recovery, price=price, kept=settings.deliveries_kept),
        crew=Crew(),
        rotation=Rotation(database, vault),
        dropin=DropInAnswers(database, vault),
    )

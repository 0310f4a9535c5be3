"""One running tracker: from a locked home to everything ready, and back to nothing. The order of the steps lives here alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from tracker.embedded import environment, home, ports, recovery, roster
from tracker.embedded.account import place
from tracker.embedded.child import Child
from tracker.embedded.logfile import Faults
from tracker.embedded.postgres import Postgres
from tracker.embedded.screen import Screen
from tracker.embedded.supervisor import Member, Orders, Supervisor, become_reaper
from tracker.embedded.valkey import Valkey
from tracker.errors import ConfigurationError
from tracker.settings import Settings

POSTGRES_PORT, VALKEY_PORT = 15_432, 16_379
SERVERS_LIMIT, MIGRATION_LIMIT, PROGRAMS_LIMIT = 60.0, 300.0, 90.0


@dataclass(frozen=True)
class Programs:
    """What is started beside the servers. Tests put stand-ins in their place."""

    migration: Callable[[Mapping[str, str], Path], Child] = roster.migration
    members: Callable[[Settings, Mapping[str, str], Path, Path], list[Member]] = roster.programs
    flower: Callable[[Settings, Mapping[str, str], Path], Member] = roster.flower


@dataclass
class Installation:
    """Give it settings as the user made them; after `start` they are complete, with moved ports, server addresses and secrets."""

    settings: Settings
    screen: Screen
    orders: Orders
    base: Mapping[str, str]
    programs: Programs = field(default_factory=Programs)

    def __post_init__(self) -> None:
        os.umask(0o077)  # nothing that we or our children write is for others
        become_reaper()
        self.lodging = home.move_in(self.settings)
        self.screen.keep_log(self.lodging.logs / "supervisor.log")
        self.settings = self.settings.changed(home=self.lodging.path)
        self.own = self.settings  # as configured, to know what we own
        self.database_directory = place(self.lodging.path)
        self.ports: dict[str, int] = {}
        self._faults = Faults(self.screen.say)
        self.supervisor = Supervisor(self.screen.say, self.orders, changed=self._record)

    def start(self) -> None:
        """Bring everything up. Raises TrackerError with a reason; then call `stop` all the same."""
        self._recover()
        self._choose_ports()
        self.settings = home.with_secrets(self.settings, self.lodging.files)
        servers = self._servers()
        if servers:
            with self.screen.step(f"starting {' and '.join(member.name for member in servers)}"):
                self.supervisor.launch(*servers)
                self.supervisor.wait_ready(*servers, seconds=SERVERS_LIMIT)
        variables = self._environment()
        with self.screen.step("bringing the database schema up to date"):
            self.supervisor.run_once(self.programs.migration(variables, self.lodging.logs), MIGRATION_LIMIT)
        with self.screen.step("starting the API, beat and the workers"):
            members = self.programs.members(self.settings, variables, self.lodging.logs, self.lodging.runtime)
            self.supervisor.launch(*members)
            self.supervisor.wait_ready(*members, seconds=PROGRAMS_LIMIT)
        with self.screen.step("starting Flower"):
            flower = self.programs.flower(self.settings, variables, self.lodging.logs)
            self.supervisor.launch(flower)
            self.supervisor.wait_ready(flower, seconds=PROGRAMS_LIMIT)

    def stop(self) -> None:
        """End everything that was started, in order, and write down that nothing runs."""
        began, running = time.monotonic(), bool(self.supervisor.members)
        self.supervisor.stop()
        if self.ports:
            self._record(running=False)
        self.lodging.leave()
        if running:
            self.screen.say(f"everything is stopped ({time.monotonic() - began:.1f} s)")

    def addresses(self) -> dict[str, str]:
        """Where a person finds what; names no secret but Flower's password."""
        url = self.settings.base_url
        key = (
            self.lodging.files.api_key if self.own.bootstrap_api_key is None else "as set by TRACKER_BOOTSTRAP_API_KEY"
        )
        found = {
            "Dashboard": f"{url}/",
            "API": f"{url}/v1",
            "API docs": f"{url}/docs",
            "API key": f"in {key}" if isinstance(key, Path) else key,
            "Flower": self._urls()["flower"] + f"  ({self.settings.required('flower_auth')})",
            "Simulator": self._urls().get("simulator", ""),
            "Logs": str(self.lodging.logs),
        }
        return {name: value for name, value in found.items() if value}

    def _recover(self) -> None:
        state = home.read_state(self.lodging.files)
        left = recovery.end_leftovers(state, self.database_directory / "postgres")
        if left:
            self.screen.say(
                f"an earlier tracker ended without stopping these, so they were stopped now: {', '.join(left)}"
            )

    def _choose_ports(self) -> None:
        if not self.settings.embedded:
            self.settings = self.settings.changed(simulator_port=0)
        for name in ("api", "flower", "simulator"):
            wanted = getattr(self.settings, f"{name}_port")
            if wanted:
                self.ports[name] = self._port(
                    f"{name}_port", wanted, self.settings.api_host if name == "api" else ports.LOOPBACK
                )
        self.settings = self.settings.changed(**{f"{name}_port": port for name, port in self.ports.items()})

    def _port(self, name: str, wanted: int, host: str) -> int:
        if not ports.is_free(0, host):
            raise ConfigurationError(
                "TRACKER_API_HOST", f"nothing can listen on {host}", "use an address of this machine"
            )
        if name not in self.settings.given:
            return ports.free_port(wanted, host)
        if not ports.reserve(wanted, host):
            raise ConfigurationError(
                f"TRACKER_{name.upper()}",
                f"port {wanted} is taken or not allowed",
                "free it, choose another, or unset it to take the next free one",
            )
        return wanted

    def _servers(self) -> list[Member]:
        if self.own.database_url is not None and self.own.redis_url is not None:
            return []
        passwords, just_made = home.server_passwords(self.lodging.files)
        members = []
        if self.own.database_url is None:
            self.ports["postgres"] = ports.free_port(POSTGRES_PORT)
            postgres = Postgres(
                self._folder("postgres", new=just_made), port=self.ports["postgres"], password=passwords["postgres_password"],
                log=self.lodging.logs / "postgres.log",
            )  # fmt: skip
            self.settings = self.settings.changed(database_url=SecretStr(postgres.url))
            members.append(roster.server(postgres))
        if self.own.redis_url is None:
            self.ports["valkey"] = ports.free_port(VALKEY_PORT)
            valkey = Valkey(
                self._folder("valkey", new=just_made), port=self.ports["valkey"], password=passwords["valkey_password"],
                log=self.lodging.logs / "valkey.log",
            )  # fmt: skip
            self.settings = self.settings.changed(redis_url=SecretStr(valkey.url))
            members.append(roster.server(valkey))
        return members

    def _folder(self, name: str, *, new: bool) -> Path:
        folder = self.database_directory / name
        if new and (aside := home.set_aside(folder)):
            self.screen.say(f"the secrets of an earlier tracker at {folder} are gone, so it was moved to {aside}")
        return folder

    def _environment(self) -> dict[str, str]:
        simulator = self._urls().get("simulator")
        return environment.complete(
            self.settings, self.base, own_database=self.own.database_url is None, simulator_url=simulator
        )

    def _urls(self) -> dict[str, str]:
        found = {"api": self.settings.base_url}
        for name in ("flower", "simulator"):
            if name in self.ports:
                found[name] = f"http://{ports.LOOPBACK}:{self.ports[name]}"
        return found

    def _record(self, *, running: bool = True) -> None:
        children = {
            member.name: {"pid": member.child.pid, "sign": member.child.sign} for member in self.supervisor.members
        }
        state = {
            "pid": os.getpid() if running else None,
            "ports": self.ports,
            "urls": self._urls(),
            "database_directory": str(self.database_directory),
            "children": children,
        }
        with self._faults.survived(f"{self.lodging.files.state} cannot be written"):
            self.lodging.write_state(state)

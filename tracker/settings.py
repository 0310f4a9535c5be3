"""The one settings object, read from the environment and `.env` at a door (API, CLI, worker, supervisor) and handed down from there.

Never imported for its values at module level, and never read again after start.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from tracker.core.addresses import check_form
from tracker.core.circuit import WORN_OUT
from tracker.core.times import duration
from tracker.errors import ConfigurationError, NotRunningError

PROVIDERS = (
    "luma", "luma-official", "kling", "kling-official", "runway", "runway-official", "suno", "newapi", "yunwu", "midjourney",
    "minimax", "vidu", "ark", "jimeng", "veo", "openai",
)  # fmt: skip

DESCRIBED = "providers"  # the folder of a home whose files describe further ones
BY_CONTENT = "keys=content"
"""Behind TRACKER_ARTIFACTS_URL, as in `s3://bucket/copies?keys=content`: copies are named by their hash."""
LOOPBACK = ("127.0.0.0/8", "::1/128")


def _url(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        if not any(value.startswith(scheme) for scheme in schemes):
            raise ValueError(f"it must begin with {' or '.join(schemes)}")
        return value

    return AfterValidator(check)


def _http_url(value: str) -> str:
    parts = None if check_form(value) else urlsplit(value)
    if parts is None or parts.query or parts.fragment:
        raise ValueError("it must be a plain address such as https://example.com, without user, query or fragment")
    return value.rstrip("/")


def _store_url(value: str) -> str:
    if urlsplit(value).query not in {"", BY_CONTENT} or urlsplit(value).fragment:
        raise ValueError(f"nothing but ?{BY_CONTENT} may stand behind the place")
    return value


def _span(least: timedelta, most: timedelta) -> BeforeValidator:
    def check(value: object) -> timedelta:
        span = value if isinstance(value, timedelta) else duration(value)
        if span is None:
            raise ValueError("write seconds (86400) or an ISO 8601 duration without years and months (P1D)")
        if not least <= span <= most:
            raise ValueError(f"it must lie between {_told(least)} and {_told(most)}")
        return span

    return BeforeValidator(check)


def _told(span: timedelta) -> str:
    count, unit = (span.days, "day") if span.days else (span.seconds // 3600, "hour")
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Account(BaseModel):
    """A provider's default credential, as the environment gives it (`TRACKER_LUMA_BASE_URL`, `TRACKER_LUMA_API_KEY`)."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    base_url: HttpUrl | None = None
    api_key: SecretStr | None = None


class Settings(BaseModel):
    """Everything that can be configured. Field `api_port` is the variable `TRACKER_API_PORT`, and so on."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    home: Path = Path("./.tracker")
    database_url: Annotated[SecretStr | None, Field()] = None
    redis_url: SecretStr | None = None
    broker_url: SecretStr | None = None
    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    public_url: HttpUrl | None = None
    flower_port: Port = 5555
    flower_auth: SecretStr | None = None
    simulator_port: Annotated[int, Field(ge=0, le=65535)] = 8787
    bootstrap_api_key: SecretStr | None = None
    secret_keys: SecretStr | None = None
    artifacts_url: Annotated[str, _url("file://", "s3://", "gs://", "az://"), AfterValidator(_store_url)] | None = None
    egress_allow: tuple[str, ...] = ()
    egress_ports: tuple[Port, ...] = (80, 443)
    poll_price: Annotated[float, Field(gt=0, le=3600)] = 0.5
    poll_longest: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    endpoint_disable_after: Annotated[timedelta, _span(timedelta(hours=1), timedelta(days=365))] = WORN_OUT
    deliveries_kept: Annotated[timedelta, _span(timedelta(days=1), timedelta(days=3650))] = timedelta(days=30)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    workers_poll: Annotated[int, Field(ge=1, le=64)] = 2
    workers_webhook: Annotated[int, Field(ge=1, le=64)] = 2
    workers_download: Annotated[int, Field(ge=1, le=64)] = 2
    accounts: Mapping[str, Account] = {}
    given: frozenset[str] = frozenset()
    """Names of the fields that were set by the user: a port that was set is never moved."""

    @model_validator(mode="after")
    def _networks(self) -> Self:
        for network in self.egress_allow:
            ipaddress.ip_network(network, strict=False)
        return self

    @property
    def embedded(self) -> bool:
        """Whether this installation owns its servers: then secrets are generated, and kept in the home."""
        return self.database_url is None and self.redis_url is None

    @property
    def base_url(self) -> str:
        """Where people and links reach the API."""
        everywhere = self.api_host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if everywhere else f"[{self.api_host}]" if ":" in self.api_host else self.api_host
        return self.public_url or f"http://{host}:{self.api_port}"

    @property
    def artifacts(self) -> str:
        """Where stored copies go."""
        given = (self.artifacts_url or "").partition("?")[0]
        return given or f"file://{self.home.resolve() / 'artifacts'}"

    @property
    def artifacts_by_content(self) -> bool:
        """Whether copies are named by their content instead of by their generation."""
        return (self.artifacts_url or "").endswith(f"?{BY_CONTENT}")

    @property
    def api_on_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        try:
            return ipaddress.ip_address(self.api_host).is_loopback
        except ValueError:
            return self.api_host == "localhost"

    @property
    def reachable(self) -> tuple[str, ...]:
        """CIDRs that may be reached although they are private."""
        if "egress_allow" in self.given or not self.api_on_loopback:
            return self.egress_allow
        return LOOPBACK

    def required(self, name: str) -> str:
        """The value of a secret that must be there by now; ConfigurationError names the variable otherwise."""
        value: SecretStr | None = getattr(self, name)
        if value is None:
            raise ConfigurationError(
                f"TRACKER_{name.upper()}",
                "is not set",
                "set it (it is generated only when the embedded servers are used)",
            )
        return value.get_secret_value()

    def changed(self, **fields: Any) -> Settings:
        """The same settings with some fields replaced."""
        return self.model_copy(update=fields)


def load(environ: Mapping[str, str] | None = None, dotenv: str | Path | None = ".env") -> Settings:
    """Read the environment, with `.env` below it. Raises ConfigurationError for the first wrong value."""
    merged: dict[str, str | None] = {
        **(dotenv_values(dotenv) if dotenv else {}),
        **(os.environ if environ is None else environ),
    }
    found = {k.removeprefix("TRACKER_").lower(): v for k, v in merged.items() if k.startswith("TRACKER_") and v}
    fields: dict[str, Any] = {
        k: v for k, v in found.items() if k in Settings.model_fields and k not in {"accounts", "given"}
    }
    for name in {"egress_allow", "egress_ports"} & fields.keys():
        fields[name] = tuple(part.strip() for part in fields[name].split(",") if part.strip())
    home = Path(found.get("home") or Settings.model_fields["home"].default)
    try:
        return Settings(**fields, accounts=_accounts(found, home), given=frozenset(fields))
    except ValidationError as wrong:
        raise _as_configuration_error(wrong) from None


def described_in(home: Path) -> list[Path]:
    """The files that describe providers beside the built-in ones; each is named like its provider. Hidden ones are editors'."""
    try:
        return sorted(file for file in (home / DESCRIBED).iterdir() if file.suffix == ".toml" and file.name[0] != ".")
    except FileNotFoundError:
        return []
    except OSError as wrong:
        raise ConfigurationError(
            str(home / DESCRIBED), f"cannot be read ({wrong.strerror})", "let the tracker read it"
        ) from None


def _accounts(found: Mapping[str, str | None], home: Path) -> dict[str, Account]:
    accounts = {}
    for provider in (*PROVIDERS, *(file.stem for file in described_in(home))):
        stem = provider.replace("-", "_")
        values = {field: found[f"{stem}_{field}"] for field in ("base_url", "api_key") if f"{stem}_{field}" in found}
        if values:
            try:
                accounts[provider] = Account.model_validate(values)
            except ValidationError as wrong:
                raise _as_configuration_error(wrong, stem.upper() + "_") from None
    return accounts


def _as_configuration_error(wrong: ValidationError, prefix: str = "") -> ConfigurationError:
    first = wrong.errors()[0]
    variable = f"TRACKER_{prefix}{str(first['loc'][0]).upper()}" if first["loc"] else "TRACKER_EGRESS_ALLOW"
    reason = first["msg"].removeprefix("Value error, ")
    return ConfigurationError(
        variable, f"is wrong ({reason[0].lower() + reason[1:]})", "correct it, or unset it to use the default"
    )


@dataclass(frozen=True)
class Home:
    """The files of one TRACKER_HOME, by name. Creating and protecting them is the supervisor's work."""

    path: Path

    @property
    def state(self) -> Path:
        """Ports, process ids and places of the running tracker; holds no secret."""
        return self.path / "state.json"

    @property
    def secrets(self) -> Path:
        """Generated secrets (0600): postgres_password, valkey_password, secret_keys, flower_auth."""
        return self.path / "secrets.json"

    @property
    def api_key(self) -> Path:
        """The generated bootstrap API key (0600)."""
        return self.path / "api-key"


def attach(settings: Settings) -> Settings:
    """Fill what the running embedded tracker of this home knows: server addresses, moved ports, generated secrets.

    For doors started by a person beside a running `tracker up`; a complete configuration comes back unchanged.
    Raises NotRunningError when a server is neither configured nor running.
    """
    if settings.database_url is not None and settings.redis_url is not None:
        return settings.changed(broker_url=settings.broker_url or settings.redis_url)
    home = Home(settings.home)
    try:
        state, secrets = json.loads(home.state.read_text()), json.loads(home.secrets.read_text())
        key = home.api_key.read_text().strip() if settings.bootstrap_api_key is None else None
    except (FileNotFoundError, json.JSONDecodeError):
        raise NotRunningError(settings.home) from None
    if not state.get("pid"):
        raise NotRunningError(settings.home)
    ports = state.get("ports", {})
    fields: dict[str, Any] = {f"{name}_port": ports[name] for name in ("api", "flower", "simulator") if name in ports}
    fields |= _server_urls(settings, ports, secrets)
    generated = {
        "secret_keys": secrets.get("secret_keys"),
        "flower_auth": secrets.get("flower_auth"),
        "bootstrap_api_key": key,
    }
    fields |= {name: SecretStr(value) for name, value in generated.items() if value and getattr(settings, name) is None}
    return settings.changed(**fields)


def _server_urls(settings: Settings, ports: Mapping[str, int], secrets: Mapping[str, str]) -> dict[str, SecretStr]:
    database = settings.database_url or SecretStr(
        f"postgresql://tracker:{secrets.get('postgres_password')}@127.0.0.1:{ports.get('postgres')}/tracker"
    )
    redis = settings.redis_url or SecretStr(
        f"redis://:{secrets.get('valkey_password')}@127.0.0.1:{ports.get('valkey')}/0"
    )
    return {"database_url": database, "redis_url": redis, "broker_url": settings.broker_url or redis}

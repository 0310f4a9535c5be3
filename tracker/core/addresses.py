"""Which addresses this product may reach: one table, one question. Pure: never resolves a name or opens a socket.

A wrong "yes" lets a stranger's URL reach the private network, so whatever is not plainly public unicast is refused.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

# `is_global` differs between Python releases and calls some translated and tunnelled ranges global,
# so every range that the IANA special-purpose registries list is named here.
_REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::1/128", "loopback"),
        ("64:ff9b::/96", "an IPv4 address in disguise (NAT64)"),
        ("64:ff9b:1::/48", "an IPv4 address in disguise (NAT64)"),
        ("::/8", "reserved, or an IPv4 address in disguise"),
        ("100::/8", "reserved for discarding"),
        ("2001::/23", "reserved for protocols (Teredo and others)"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "an IPv4 address in disguise (6to4)"),
        ("3fff::/20", "for documentation"),
        ("5f00::/16", "for segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})

_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.ASCII)
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*", re.ASCII)


def unwrap(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped one (`::ffff:a.b.c.d`), the same to a kernel; else the address itself."""
    return getattr(address, "ipv4_mapped", None) or address


def classify(address: Address | str) -> str | None:
    """Why this address may not be reached, in a few words; None when it is plainly public."""
    ip = unwrap(ipaddress.ip_address(address) if isinstance(address, str) else address)
    for network, reason in _REFUSED:
        if ip.version == network.version and ip in network:
            return reason
    if isinstance(ip, ipaddress.IPv6Address):
        if ip not in _GLOBAL_UNICAST or ip.scope_id:
            return "not global unicast"
        if (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP:
            return "an IPv4 address in disguise (ISATAP)"
    return None if ip.is_global and not (ip.is_multicast or ip.is_reserved) else "not public"


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be reached: public addresses on `ports`; what lies in `allow` on any port and over plain http."""

    allow: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({80, 443})

    @classmethod
    def of(cls, allow: Iterable[str] = (), ports: Iterable[int] = (80, 443)) -> Self:
        """A policy from the settings' CIDRs and ports."""
        return cls(tuple(ipaddress.ip_network(network, strict=False) for network in allow), frozenset(ports))

    def allows(self, address: Address) -> bool:
        """Whether the operator opened this address."""
        ip = unwrap(address)
        return any(ip.version == network.version and ip in network for network in self.allow)

    def refusal(self, address: Address, port: int, *, plain: bool = False) -> str | None:
        """The sentence that says why this address and port may not be reached, and the mend; None when they may.

        `plain` asks for a connection without TLS where only https is accepted.
        """
        if self.allows(address):
            return None
        if reason := classify(address):
            return f"{address} may not be reached ({reason}); use a public address, or add it to TRACKER_EGRESS_ALLOW"
        if port not in self.ports:
            return self.port_refusal(port)
        if plain:
            return f"plain http to {address} is not accepted; use https://, or add it to TRACKER_EGRESS_ALLOW"
        return None

    def port_refusal(self, port: int) -> str:
        """The sentence for a port that is not open."""
        allowed = ", ".join(map(str, sorted(self.ports)))
        return f"port {port} may not be reached; use {allowed}, or add it to TRACKER_EGRESS_PORTS"

    @property
    def beyond_loopback(self) -> bool:
        """Whether anything but loopback is opened: then a name of any kind may turn out to be allowed."""
        return any(not network.is_loopback for network in self.allow)


def check_url(url: str, policy: Policy, *, https_only: bool) -> str | None:
    """Why this URL cannot be accepted, as a sentence with the mend; None when it can.

    Looks at the text alone. Literal addresses are judged here in every spelling; names are judged when they are
    resolved, at connect, save those that can only mean this machine or that no address could make acceptable.
    """
    if wrong := check_form(url):
        return wrong
    parts = urlsplit(url)
    port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    return _wrong_host(parts.hostname or "", port, policy, plain=https_only and parts.scheme == "http")


def check_form(url: str, longest: int = LONGEST_URL) -> str | None:
    """Why this is no http(s) URL that could be asked at all, wherever it leads; None when it is one."""
    if len(url) > longest:
        return f"it is longer than {longest} characters; use a shorter URL"
    if _CONTROL_OR_SPACE.search(url):
        return "it has spaces, control characters or a backslash in it; write them percent-encoded"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for what is no port
    except ValueError:
        return "it is not a valid URL; write it as https://host/path"
    return _wrong_form(parts)


def _wrong_form(parts: SplitResult) -> str | None:
    if parts.scheme not in DEFAULT_PORTS:
        return "its scheme is not http or https; write it as https://host/path"
    if parts.username is not None or parts.password is not None:
        return "it has credentials in it; send them in a header instead"
    if "[" in parts.netloc and ":" not in (parts.hostname or ""):
        return "what is in its brackets is no IPv6 address; write it as https://host/path"
    return None if parts.hostname else "it has no host; write it as https://host/path"


def _wrong_host(host: str, port: int, policy: Policy, *, plain: bool) -> str | None:
    name = unicodedata.normalize("NFKC", host).replace("\N{IDEOGRAPHIC FULL STOP}", ".").lower().removesuffix(".")
    if ":" not in name and not _is_numeric(name):
        return _wrong_name(name, port, policy, plain=plain)
    if address := literal(name):
        return policy.refusal(address, port, plain=plain)
    return f"{host[:80]!r} is not a valid address; write it as a.b.c.d or [a::b], without a zone"


def _wrong_name(name: str, port: int, policy: Policy, *, plain: bool) -> str | None:
    if not _is_name(name):
        return f"{name[:80]!r} is not a valid host name; write it in letters, digits, hyphens and dots"
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return policy.refusal(ipaddress.IPv4Address("127.0.0.1"), port, plain=plain)
    if policy.beyond_loopback:
        return None
    if plain:
        return "plain http is accepted only towards TRACKER_EGRESS_ALLOW; use https://"
    return None if port in policy.ports else policy.port_refusal(port)


def _is_name(name: str) -> bool:
    try:
        return bool(_NAME.fullmatch(name.encode("idna").decode("ascii").lower()))
    except UnicodeError:
        return False


def _is_numeric(name: str) -> bool:
    """Whether a resolver would read this host as a number: its last label is one (the rule of the URL standard)."""
    return bool(_NUMBER.fullmatch(name.rpartition(".")[2]))


def literal(host: str) -> Address | None:
    """The address that a host means by its spelling: dotted, short (`127.1`), decimal, octal, hexadecimal; else None.

    An IPv6 address with a zone is none: zones exist for link-local addresses only.
    """
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        numbers = [_number(label) for label in host.split(".")]
    except ValueError:
        return None
    *leading, last = numbers
    if len(leading) > 3 or any(number > 255 for number in leading) or last >= 256 ** (4 - len(leading)):  # noqa: PLR2004 - the shape of IPv4
        return None
    return ipaddress.IPv4Address(sum(number << (24 - 8 * place) for place, number in enumerate(leading)) + last)


def _number(label: str) -> int:
    if not _NUMBER.fullmatch(label):
        raise ValueError(label)
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") and len(label) > 1 else 10)

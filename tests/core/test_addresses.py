"""The address classifier against a table written independently of it, and every spelling of a forbidden host."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.core.addresses import Policy, check_url, classify, literal

# From the IANA special-purpose registries (2026) and RFC 4291, 4214, 6052, 6145: first and last address of each range.
FORBIDDEN_4 = [
    ("0.0.0.0", "0.255.255.255"), ("10.0.0.0", "10.255.255.255"), ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"), ("169.254.0.0", "169.254.255.255"), ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"), ("192.0.2.0", "192.0.2.255"), ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"), ("198.18.0.0", "198.19.255.255"), ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"), ("224.0.0.0", "255.255.255.255"),
]  # fmt: skip
GLOBAL_6 = [
    ("2000::", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:200::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:db9::", "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2003::", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("3fff:1000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
]
LOOPBACK = Policy.of(["127.0.0.0/8", "::1/128"])
CLOSED = Policy.of([])


def within(number: int, ranges: list[tuple[str, str]], kind: type) -> bool:
    return any(int(kind(first)) <= number <= int(kind(last)) for first, last in ranges)


def expected_4(number: int) -> bool:
    return not within(number, FORBIDDEN_4, ipaddress.IPv4Address)


def expected_6(number: int) -> bool:
    if number >> 32 == 0xFFFF:
        return expected_4(number & 0xFFFFFFFF)
    isatap = (number >> 32) & 0xFDFFFFFF == 0x5EFE
    return within(number, GLOBAL_6, ipaddress.IPv6Address) and not isatap


EDGES_4 = [int(ipaddress.IPv4Address(end)) + step for pair in FORBIDDEN_4 for end in pair for step in (-1, 0, 1)]
EDGES_6 = [int(ipaddress.IPv6Address(end)) + step for pair in GLOBAL_6 for end in pair for step in (-1, 0, 1)]
IPV4 = st.integers(0, 2**32 - 1) | st.sampled_from([edge for edge in EDGES_4 if 0 <= edge < 2**32])
EMBEDDINGS = [
    0,
    0xFFFF << 32,
    0xFFFF << 48,
    0x64FF9B << 96,
    0x64FF9B0001 << 80,
    0x5EFE << 32,
    (0x20010DB9 << 96) | (0x2005EFE << 32),
]


@given(IPV4)
def test_ipv4_agrees_with_the_table(number):
    assert (classify(ipaddress.IPv4Address(number)) is None) == expected_4(number)


@given(st.integers(0, 2**128 - 1) | st.integers(0x2000 << 112, 0x4000 << 112) | st.sampled_from(EDGES_6))
def test_ipv6_agrees_with_the_table(number):
    assert (classify(ipaddress.IPv6Address(number)) is None) == expected_6(number)


@given(IPV4, st.sampled_from(EMBEDDINGS))
def test_ipv4_inside_ipv6_is_judged_or_refused(number, prefix):
    assert (classify(ipaddress.IPv6Address(prefix | number)) is None) == expected_6(prefix | number)


@given(IPV4)
def test_6to4_and_teredo_are_refused_whatever_they_embed(number):
    assert classify(ipaddress.IPv6Address((0x2002 << 112) | (number << 80)))
    assert classify(ipaddress.IPv6Address((0x20010000 << 96) | number))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8"])
def test_well_known_public_addresses_pass(address):
    assert classify(address) is None


@given(IPV4)
def test_every_spelling_of_an_ipv4_address_means_the_same(number):
    address = ipaddress.IPv4Address(number)
    a, b, c, d = address.packed
    spellings = [
        str(address), str(number), hex(number), f"0{number:o}", f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{number & 0xFFFF}", f"0x{a:02X}.{b}.0{c:o}.{d}".lower(),
    ]  # fmt: skip
    assert {literal(spelling) for spelling in spellings} == {address}


HOSTS = [
    "127.0.0.1", "2130706433", "0x7f000001", "017700000001", "0x7f.1", "127.1", "127.0.1", "0177.0.0.1", "127.0.0.1.",
    "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "localhost", "LOCALHOST.", "a.localhost",
    "ip6-localhost", "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:a9fe:a9fe]",
    "[::ffff:0:169.254.169.254]", "[64:ff9b::169.254.169.254]", "[2002:a9fe:a9fe::]", "[fe80::5efe:169.254.169.254]",
    "[2001:db9::5efe:169.254.169.254]", "[fe80::1%25eth0]", "[fec0::1]", "[100:0:0:1::1]", "0", "0.0.0.0", "[::]",
    "\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021", "10.1", "[fd00::1]", "256.1.1.1", "1.2.3.4.5", "0x", "09",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_every_spelling_of_a_forbidden_host_is_refused_at_registration(host):
    assert check_url(f"https://{host}/hook", CLOSED, https_only=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/a?b=c", "https://8.8.8.8/", "https://EXAMPLE.com:443/", "https://b\u00fccher.example/", "https://[2606:4700::1111]/",
        "https://xn--bcher-kva.example/", "https://my_host.example./", "https://a.b-c.example:80/",
    ],
)  # fmt: skip
def test_public_urls_pass(url):
    assert check_url(url, LOOPBACK, https_only=True) is None


@pytest.mark.parametrize(
    ("url", "mend"),
    [
        ("ftp://example.com/", "https://"), ("//example.com/", "https://"), ("https:///a", "https://host"), ("", "https://"),
        ("https://user@example.com/", "header"), ("https://:pw@example.com/", "header"), ("https://a:b@example.com/", "header"),
        ("https://example.com/\0", "percent"), ("https://example.com/a b", "percent"), ("https://exa\nmple.com/", "percent"),
        ("https://example.com\\@127.0.0.1/", "percent"), ("https://example.com:99999/", "https://"), ("https://example.com:x/", "https://"),
        ("https://example.com:8443/", "TRACKER_EGRESS_PORTS"), ("https://8.8.8.8:22/", "TRACKER_EGRESS_PORTS"), ("https://example.com:0/", "TRACKER_EGRESS_PORTS"),
        ("https://" + "a" * 2041, "shorter"), ("http://example.com/", "https://"), ("http://8.8.8.8/", "https://"),
        ("https://10.0.0.1/", "TRACKER_EGRESS_ALLOW"), ("https://exa%00mple.com/", "letters"), ("https://-a.example/", "letters"),
        ("https://" + "a" * 64 + ".example/", "letters"), ("https://[::1", "https://"), ("https://[v1.x]/", "https://"),
    ],
)  # fmt: skip
def test_bad_urls_are_refused_with_the_mend(url, mend):
    reason = check_url(url, LOOPBACK, https_only=True)
    assert reason
    assert mend in reason


def test_what_the_operator_opened_may_be_reached_on_any_port_and_over_plain_http():
    for host in ("127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]"):
        assert check_url(f"http://{host}:9000/", LOOPBACK, https_only=True) is None
    assert check_url("http://10.0.0.1/", LOOPBACK, https_only=True)
    private = Policy.of(["10.0.0.0/8"])
    assert check_url("http://receiver:9000/", private, https_only=True) is None  # judged at connect
    assert check_url("http://localhost/", private, https_only=True)
    assert check_url("http://11.0.0.1/", private, https_only=False) is None


@given(st.text(max_size=60), st.booleans())
def test_no_text_makes_the_check_fail(text, https_only):
    check_url(text, LOOPBACK, https_only=https_only)
    check_url("https://" + text, CLOSED, https_only=https_only)


@given(IPV4, st.integers(0, 65535), st.booleans())
def test_a_policy_opens_exactly_what_it_names(number, port, plain):
    address = ipaddress.IPv4Address(number)
    allowed = number >> 24 in {10, 127}
    public = expected_4(number) and port in {80, 443} and not plain
    assert (Policy.of(["10.0.0.0/8", "127.0.0.0/8"]).refusal(address, port, plain=plain) is None) == (allowed or public)

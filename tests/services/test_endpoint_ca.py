"""An endpoint's own certificate authority: only certificates get in, and with them deliveries do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.net import hostile
from tracker.errors import InvalidError
from tracker.services.forms import EndpointChange, EndpointForm, validated

from .conftest import Place


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> hostile.Authority:
    return hostile.Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def key(authority: hostile.Authority) -> str:
    return authority.ca.private_key_pem.bytes().decode()


def test_a_receiver_behind_a_private_authority_is_reached_with_its_certificate_alone(
    place: Place, authority: hostile.Authority
) -> None:
    endpoints = place.services.endpoints
    with hostile.serving(hostile.says(hostile.OK), authority.context()) as server:
        made = endpoints.create(place.project, EndpointForm(url=server.url))
        for ca, outcome in ((None, "tls"), (f"issued to us in May\n{authority.pem}", None)):
            endpoints.edit(place.project, made.id, validated(EndpointChange, {"ca": ca}))
            delivery = endpoints.test(place.project, made.id)
            place.send()
            [attempt] = place.services.deliveries.get(place.project, delivery)[1]
            assert attempt.error_class == outcome, attempt.response
    assert endpoints.get(place.project, made.id).ca == authority.pem, "what stood around is not kept"


def test_several_certificates_are_kept_in_order(authority: hostile.Authority, tmp_path: Path) -> None:
    other = hostile.Authority(tmp_path)
    both = authority.pem + "\n" + other.pem
    assert validated(EndpointForm, {"url": "https://a.example", "ca": both}).ca == authority.pem + other.pem


def test_whatever_else_is_refused_with_its_reason(authority: hostile.Authority, key: str) -> None:
    lines = authority.pem.splitlines()
    begin, end = lines[0], lines[-1]
    refused = {
        "": "PEM text",
        "BEGIN CERTIFICATE": "PEM text",
        "\0": "PEM text",
        f"{begin}\n{end}\n": "no certificate",
        f"{begin}\nbm8gY2VydGlmaWNhdGU=\n{end}\n": "no certificate",
        "\n".join(lines[:-3]): "no certificate",
        "\n".join([*lines[:2], *lines[3:]]): "no certificate",
        key: "private key",
        authority.pem + key: "private key",
        authority.pem + key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"): "private key",
        authority.pem + begin.replace("CERTIFICATE", "X509 CRL"): "nothing else",
    }
    for text, reason in refused.items():
        for form, fields in ((EndpointForm, {"url": "https://a.example"}), (EndpointChange, {})):
            with pytest.raises(InvalidError) as wrong:
                validated(form, {**fields, "ca": text})
            [problem] = wrong.value.problems
            assert (problem.field, reason in problem.message) == ("ca", True), (text, problem.message)
            assert not set(key.splitlines()[1:-1]) & set(str(wrong.value).split())

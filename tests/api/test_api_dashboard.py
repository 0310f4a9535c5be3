"""The page at `/`: what it loads is there, nothing from elsewhere is, and every path that it calls exists."""

from __future__ import annotations

import re

import requests

from .conftest import Api


def fetched(api: Api, path: str) -> requests.Response:
    return requests.get(api.url + path, timeout=10)


def test_the_page_and_what_it_loads_need_no_key(api: Api) -> None:
    page = fetched(api, "/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    loaded = re.findall(r'(?:src|href)="(/dashboard/[^"]+)"', page.text)
    assert len(loaded) == 2
    for path in loaded:
        got = fetched(api, path)
        assert got.status_code == 200
        assert got.headers["content-type"].split(";")[0] in {"text/javascript", "text/css"}
    assert fetched(api, "/dashboard/../app.py").status_code == 404
    assert fetched(api, "/dashboard/rapidoc-9.3.8.js").status_code == 404


def test_nothing_from_elsewhere_runs_in_it(api: Api) -> None:
    page = fetched(api, "/")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    text = page.text + fetched(api, "/dashboard/dashboard.js").text + fetched(api, "/dashboard/dashboard.css").text
    assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), "it works without the internet"
    assert "innerHTML" not in text
    assert not re.search(r"<script(?! type=\"module\" src=)|\son\w+=|style=", page.text), "the policy would refuse it"


def test_every_path_that_it_calls_exists(api: Api) -> None:
    script = fetched(api, "/dashboard/dashboard.js").text
    called = {
        re.sub(r"\$\{[^}]*\}", "{}", path).split("?")[0]
        for path in re.findall(r"[`\"](/v1/[^`\"]+|/readyz)[`\"]", script)
    }
    known = {re.sub(r"\{[^}]*\}", "{}", path) for path in fetched(api, "/openapi.json").json()["paths"]}
    assert len(called) >= 6
    # A path that ends in a variable step is each of the steps that the page has buttons for.
    spread = {path for path in called if path != "/v1/generations/{}/{}"} | {
        f"/v1/generations/{{}}/{step}" for step in ("poll", "cancel")
    }
    assert spread <= known

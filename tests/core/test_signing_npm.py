"""Our signatures against the npm package `standardwebhooks`, both ways, where Node and its package manager are installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tracker.core import signing

LOCKED = Path(__file__).parent / "npm"
GOLDEN = Path(__file__).parent / "golden"
NODE, NPM = shutil.which("node"), shutil.which("npm")
PROGRAM = """
import { Webhook } from "standardwebhooks";
let text = "";
for await (const piece of process.stdin) text += piece;
const said = JSON.parse(text).map(({ secret, headers, body, sign }) => {
  const webhook = new Webhook(secret);
  if (sign) return webhook.sign(sign.id, new Date(sign.at * 1000), body);
  try {
    return webhook.verify(body, headers);
  } catch (wrong) {
    return `refused: ${wrong.message}`;
  }
});
console.log(JSON.stringify(said));
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if NODE is None or NPM is None:
        pytest.skip("Node or npm is not installed here")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCKED / name, folder)
    command = [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=20000"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode and any(word in done.stderr for word in ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN")):
        pytest.skip("the package cannot be fetched here")
    assert done.returncode == 0, done.stderr
    (folder / "program.mjs").write_text(PROGRAM)
    return folder / "program.mjs"


def run(program: Path, wishes: list[dict[str, Any]]) -> list[Any]:
    assert NODE is not None
    said = subprocess.run([NODE, str(program)], input=json.dumps(wishes), capture_output=True, text=True, check=True)
    answers: list[Any] = json.loads(said.stdout)
    return answers


def test_the_npm_library_takes_each_of_our_events_and_nothing_forged(program: Path) -> None:
    secret, other, now = signing.new_secret(), signing.new_secret(), int(time.time())
    bodies = [path.read_bytes() for path in sorted(GOLDEN.glob("*.json"))]
    assert bodies
    wishes = [
        {"secret": secret, "headers": signing.headers(secrets, "evt_1", now, body), "body": body.decode()}
        for body in bodies
        for secrets in ([secret], [other, secret], [other])
    ]
    said = run(program, wishes)
    for body, (alone, rotating, forged) in zip(bodies, zip(*[iter(said)] * 3, strict=True), strict=True):
        assert alone == rotating == json.loads(body)
        assert forged.startswith("refused")


def test_we_take_what_the_npm_library_signs(program: Path) -> None:
    secret, now, body = signing.new_secret(), int(time.time()), '{"type":"ping","data":{"prompt":"猫が踊る"}}'
    [signature] = run(program, [{"secret": secret, "body": body, "sign": {"id": "msg_1", "at": now}}])
    received = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": signature}
    assert signing.verify(secret, received, body.encode(), now=now) == json.loads(body)
    with pytest.raises(signing.SignatureError):
        signing.verify(secret, received, body.encode() + b" ", now=now)

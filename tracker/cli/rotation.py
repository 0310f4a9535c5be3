"""`tracker rotate-keys`: stored secrets under the newest of TRACKER_SECRET_KEYS."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Annotated

import typer

from tracker.cli.options import AsJson


def add_to(app: typer.Typer) -> None:
    app.command("rotate-keys")(rotate_keys)


def rotate_keys(
    *,
    fresh: Annotated[bool, typer.Option("--fresh", help="Print a new key, and do nothing else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Encrypt every stored secret with the newest of TRACKER_SECRET_KEYS, so that older ones can be dropped.

    Every process must know the newest key before. Exit 1 when a secret cannot be opened.
    """
    from rich.progress import track

    from tracker.cli.render import console, print_json
    from tracker.cli.session import opened
    from tracker.services.rotation import Verdict

    if fresh:
        from cryptography.fernet import Fernet

        sys.stdout.write(f"{Fernet.generate_key().decode()}\n")
        return
    found: Counter[Verdict] = Counter(dict.fromkeys(Verdict, 0))
    closed: Counter[str] = Counter()
    with opened() as session:
        screen, rotation = console(error=True), session.services.rotation
        for one in track(
            rotation.run(), description="encrypting", total=rotation.count(), console=screen,
            disable=not screen.is_terminal, transient=True,
        ):  # fmt: skip
            found[one.verdict] += 1
            closed[one.table] += one.verdict is Verdict.CLOSED
        alone = len(session.settings.required("secret_keys").split(",")) == 1
    if as_json:
        print_json({verdict.value: found[verdict] for verdict in Verdict})
    else:
        sys.stdout.write(
            f"{found[Verdict.RESEALED]:,} secrets are under the newest key now, {found[Verdict.CURRENT]:,} were before\n"
        )
        if alone:
            sys.stderr.write(
                "tracker: TRACKER_SECRET_KEYS holds one key; put a new one in front of it (tracker rotate-keys --fresh)\n"
            )
    if found[Verdict.CLOSED]:
        where = ", ".join(f"{count:,} in {table}" for table, count in sorted((+closed).items()))
        sys.stderr.write(
            f"tracker: none of the keys opens {where}; keep the older keys, and add the one that was in use\n"
        )
        raise typer.Exit(1)

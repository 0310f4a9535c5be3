"""`python -m tracker.cli` is `tracker`."""

from tracker.cli.main import main

main()

"""A relay that speaks the providers' own paths and misbehaves on demand: the demo, the tests and the benchmarks use it.

It is one process on its own (`python -m tracker.simulator`); it never imports the rooms it is used to test.
"""

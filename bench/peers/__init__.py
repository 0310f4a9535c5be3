"""What people would write otherwise, each in its framework's own manner. Runs in environments of their own.

Every program takes orders on standard input, `go FIRST COUNT`: see that these generations are asked about once. Its imports and
connections are made before the first order, so that no start is counted.
"""

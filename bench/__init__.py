"""Benchmarks: what the product claims about speed, against what people would write otherwise. The product imports none of this."""

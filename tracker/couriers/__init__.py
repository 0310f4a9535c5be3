"""Couriers carry one effect each to another host: a webhook there, a file here. They never touch the database."""

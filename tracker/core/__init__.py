"""The rules of the product, pure: standard library only, no clock and no dice of its own (`now` and `roll` are arguments)."""

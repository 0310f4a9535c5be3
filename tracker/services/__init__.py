"""One use case each: they own the transactions, hold no network call inside one, and never call each other."""

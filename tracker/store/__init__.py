"""The only SQL of the product. Functions take an open transaction; only `db.Database` begins and commits. No rule is decided here."""

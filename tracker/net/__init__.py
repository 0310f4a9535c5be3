"""The only way out: every connection to another host is made here, and none before its address was vetted."""

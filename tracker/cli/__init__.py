"""The command line: a thin door over the services. It decides nothing, and never imports another door (it starts them as programs)."""

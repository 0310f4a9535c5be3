"""Generation Tracker: polls AI generation providers, stores every transition, fires signed webhooks and keeps durable copies."""

__version__ = "0.1.0"

"""The REST API: a thin door. It reads requests, asks one service, and writes answers; it decides nothing and knows no SQL."""

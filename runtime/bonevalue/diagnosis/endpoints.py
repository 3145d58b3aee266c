"""Addresses with their ports, and how they are written."""

from __future__ import annotations

__all__ = ["Endpoint", "written"]

#: An IP address and a port.
Endpoint = tuple[str, int]


def written(endpoint: Endpoint) -> str:
    """``192.0.2.1:80``, ``[2001:db8::1]:80``."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

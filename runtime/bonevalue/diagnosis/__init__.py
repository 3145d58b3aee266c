"""Why can I not reach X: everything between this machine and another peer, looked at piece by piece."""

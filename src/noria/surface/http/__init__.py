"""HTTP: the gateway's data plane and the server's control plane."""

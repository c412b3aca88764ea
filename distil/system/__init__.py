"""What lies under every run: files, locks, limits of the machine, the network, text for a terminal."""

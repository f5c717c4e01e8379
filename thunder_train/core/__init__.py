"""What every package may use: files, hashes, processes, ssh, the terminal."""

"""Shared by every package: files, hashes, text, processes, ssh, the terminal."""

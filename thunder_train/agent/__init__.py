"""The program that answers questions on a host, and its client."""

"""Hosts: hostfile, preflight, links, sync and fetch."""

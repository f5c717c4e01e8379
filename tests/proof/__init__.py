"""Tests of the developers' command that renews revisions.json."""

"""What a build made, to be compared byte for byte with what another made."""

from tests.helpers.project_copy import Copy

TIMED = {"preflight.json", "metrics.jsonl", "timing.json", "report.md", "report.html", "hostfile.json"}
"""Files that hold seconds; logs/check has its own hostfile."""


def results(project: Copy) -> dict[str, bytes]:
    """Every output whose bytes follow from the inputs."""
    made = [path for folder in ("data", "runs") for path in (project.path / folder).rglob("*") if path.is_file()]
    kept = [path for path in made if path.name not in TIMED and "logs" not in path.parts]
    return {str(path.relative_to(project.path)): path.read_bytes() for path in kept}

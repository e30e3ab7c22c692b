"""Prints, as pip's constraints, the oldest release of each dependency that pyproject.toml takes."""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def floors(pyproject: str) -> list[str]:
    """Return a pin to the lower bound of each dependency, those of the extras too."""
    project = tomllib.loads(pyproject)["project"]
    lists = project["dependencies"], *project["optional-dependencies"].values()
    found = [re.match(r"([\w-]+)>=([\w.]+)", each) for declared in lists for each in declared]
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    print("\n".join(floors(PYPROJECT.read_text())))

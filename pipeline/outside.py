"""Files of the user's that the parameters name, wherever the project's stages are run from."""

from pathlib import Path

# Inside a project: where DVC keeps the folders that it runs queued experiments in.
_EXPERIMENTS = Path(".dvc/tmp/exps")


def find_outside(name: str) -> Path:
    """The path that a parameter names; `~` is the home folder.

    A queued experiment has a folder of what git tracks, without archives and weights of the user's: what is
    missing there is looked for in the project that the folder belongs to.
    """
    path, here = Path(name).expanduser(), Path.cwd()
    projects = [folder for folder in here.parents if here.is_relative_to(folder / _EXPERIMENTS)]
    there = (project / path for project in projects)
    return path if path.exists() else next((found for found in there if found.exists()), path)

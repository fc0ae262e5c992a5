"""The project's optional parts, called extras in pyproject.toml, and what to do where one is missing."""


def not_installed(module: str | None, extra: str, *, use: str = "") -> str:
    """One line for a ModuleNotFoundError: what is missing, what needs it if that is said, and how to install it."""
    needed = f", {use}" if use else ""
    return f"{module} is not installed{needed}; in this project's folder, pip install -e '.[{extra}]'"

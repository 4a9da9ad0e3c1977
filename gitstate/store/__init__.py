"""The repository as the rest of gitstate sees it; the only package that knows dulwich."""

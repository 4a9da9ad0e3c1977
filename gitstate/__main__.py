"""``python -m gitstate``: the command line."""

from gitstate.cli import main

if __name__ == "__main__":
    main()

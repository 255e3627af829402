"""``python -m imgtools`` is the command ``imgtools``."""

from imgtools.cli.main import main

if __name__ == "__main__":
    main()

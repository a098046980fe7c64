"""The command line, as `jcdnet` and as `python -m jcdnet`."""

from cli import main

if __name__ == "__main__":
    main()

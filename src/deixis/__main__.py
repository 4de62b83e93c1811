"""``python -m deixis`` is ``deixis``."""

from deixis.cli import main

if __name__ == "__main__":
    main()

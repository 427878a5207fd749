"""`python -m bench` is `trilemma`."""

from bench.cli import main

if __name__ == "__main__":
    main()

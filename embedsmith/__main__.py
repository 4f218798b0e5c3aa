"""`python -m embedsmith`: the command line."""

from embedsmith.cli.main import main

if __name__ == "__main__":
    main()

"""`python -m duo_unlearn` is the command `duo`."""

from .cli.main import main

if __name__ == "__main__":
    main()

"""Run flowbench from a checkout: `python cli.py fit moons`."""

from flowbench.cli.app import main

if __name__ == "__main__":
    main()

"""Run flowbench as a module: `python -m flowbench fit moons`."""

from flowbench.cli.app import main

if __name__ == "__main__":
    main()

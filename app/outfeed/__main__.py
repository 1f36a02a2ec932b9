"""Run the command `outfeed` as `python -m outfeed`."""

from outfeed.cli import main

if __name__ == "__main__":
    main(prog_name="outfeed")

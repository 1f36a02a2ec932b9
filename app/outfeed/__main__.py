"""`python -m outfeed` is `outfeed`."""

from outfeed.cli import main

if __name__ == "__main__":
    main(prog_name="outfeed")

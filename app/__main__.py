"""`python -m app` is `outfeed`."""

from app.cli import main

if __name__ == "__main__":
    main(prog_name="outfeed")

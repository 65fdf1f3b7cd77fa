"""`python -m stardust`: the command `stardust`."""

import sys

from stardust.cli import main

if __name__ == "__main__":
    sys.exit(main())

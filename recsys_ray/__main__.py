"""``python -m recsys_ray`` is ``recsys-ray``."""

import sys

from recsys_ray.cli import main

if __name__ == "__main__":
    sys.exit(main())

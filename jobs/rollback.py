"""The rollback stage as a job: ``python jobs/rollback.py --config CONFIG [key=value ...]``."""

import sys

from recsys_ray.cli import job

if __name__ == "__main__":
    sys.exit(job("rollback"))

"""The evaluate stage as a job: ``python jobs/evaluate.py --config CONFIG [key=value ...]``."""

import sys

from recsys_ray.cli import job

if __name__ == "__main__":
    sys.exit(job("evaluate"))

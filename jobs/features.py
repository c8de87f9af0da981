"""The features stage as a job: ``python jobs/features.py --config CONFIG [key=value ...]``."""

import sys

from recsys_ray.cli import job

if __name__ == "__main__":
    sys.exit(job("features"))

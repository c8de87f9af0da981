"""All stages: ``ray job submit --working-dir . -- python jobs/pipeline.py --config CONFIG [key=value ...]``."""

import sys

from recsys_ray.cli import job

if __name__ == "__main__":
    sys.exit(job("run"))

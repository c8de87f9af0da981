"""The online service as a job: ``python jobs/serve.py --config CONFIG [key=value ...]``."""

import sys

from recsys_ray.cli import job

if __name__ == "__main__":
    sys.exit(job("serve"))

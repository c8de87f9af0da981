"""Every night at 3 a batch run, for Prefect: ``python prefect_flow.py`` waits and runs it."""

import subprocess

from prefect import flow


@flow(retries=1)
def recommendations() -> None:
    subprocess.run(["recsys-ray", "run", "/etc/recsys/config.yaml"], check=True)


if __name__ == "__main__":
    recommendations.serve(name="nightly", cron="0 3 * * *")

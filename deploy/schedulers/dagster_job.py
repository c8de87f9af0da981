"""Every night at 3 a batch run, for Dagster."""

import subprocess

import dagster


@dagster.asset
def recommendations() -> None:
    subprocess.run(["recsys-ray", "run", "/etc/recsys/config.yaml"], check=True)


nightly = dagster.ScheduleDefinition(name="nightly", target=[recommendations], cron_schedule="0 3 * * *")
defs = dagster.Definitions(assets=[recommendations], schedules=[nightly])

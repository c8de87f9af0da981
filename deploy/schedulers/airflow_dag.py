"""Every night at 3 a batch run; a refused publish fails the task, and the run before stays published."""

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("recsys", schedule="0 3 * * *", start_date=pendulum.datetime(2026, 1, 1), catchup=False, max_active_runs=1):
    BashOperator(task_id="run", bash_command="recsys-ray run /etc/recsys/config.yaml", retries=1)

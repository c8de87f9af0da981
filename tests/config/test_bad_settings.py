"""What is wrong with a configuration, a command line or the machine: one line that names it, before Ray is imported.

CASES, ITEM_LISTS and MACHINES are the corpus; ``test_the_corpus_is_large`` holds its size.
"""

from __future__ import annotations

import contextlib
import errno
import io
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_ray.base.errors import ConfigError, DataError, RecsysError
from recsys_ray.base.process import what_failed
from recsys_ray.base.storage_errors import storage_error
from recsys_ray.cli import main
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.cluster.resources import claims, refuse_impossible
from recsys_ray.cluster.start import why_not
from recsys_ray.data.first_look import LOOK_BYTES, _look
from recsys_ray.data.prepare.files import Chunk
from recsys_ray.runs.verify import is_loopback
from recsys_ray.training import WorkerSettings

GOOD = "name: a\noutput: {folder}/out\ndata: {{source: synthetic}}\nmodel: {{name: ease}}\n"
TABLE = "data={source: table, path: events.csv, columns: {user_id: user_id, item_id: item_id}}"

FILES: list[tuple[bytes, tuple[str, ...]]] = [
    (b"", ("mapping of keys", "nothing")),
    (b"- a\n", ("mapping of keys", "list")),
    (b"just words\n", ("mapping of keys", "str")),
    (b"name: \xe9\n", ("line 1", "0xe9", "UTF-8")),
    ("name: a\n".encode("utf-16"), ("UTF-16", "UTF-8")),
    (b"name: a\x07b\n", ("not valid YAML", "character")),
    (b"name: a\n  output: b\n", ("line 2", "indentation")),
    (b"data:\n  source: table\n path: x\n", ("line 3", "indentation")),
    (b"data:\n\tsource: table\n", ("line 2", "indent with blanks")),
    (b"name: [a\n", ("not valid YAML",)),
    (b"name: 'a\n", ("not valid YAML", "no end")),
    (b"name: *a\n", ("line 1", "undefined alias")),
    (b"name: !thing a\n", ("line 1", "!thing")),
    (b"name: a\nname: b\n", ("line 2", "'name' is given twice")),
    (b"on: a\n'on': b\n", ("line 2", "'on' is given twice")),
    (b"? [a]\n: b\n", ("key must be text",)),
    (b"name: a\n---\nname: b\n", ("not valid YAML",)),
    (b"name: @a\n", ("line 1", "'@'")),
    (b"name: %a\n", ("line 1", "'%'")),
    (b"a: " + b"[" * 3000, ("nested too deeply",)),
    (b"{model: als}", ("name: field required", "output: field required", "data: field required")),
    (b"name: a\noutput: b\ndata: {}\nmodel: {}\n", ("data.source: missing", "model.name: missing")),
    (b'name: "a\\0b"\noutput: b\ndata: {source: synthetic}\nmodel: ease\n', ("name", "code 0")),
    (b"name: a\noutput: b\ndata: synthetc\nmodel: ease\n", ("data.source", "did you mean 'synthetic'")),
    (b"name: a\noutput: b\ndata: 3\nmodel: ease\n", ("data", "found 3")),
    (b"train: {}\ntraining: {}\n", ("train is the former name of the section training",)),
]
OVERRIDES: list[tuple[str, tuple[str, ...]]] = [
    ("recommends.n=5", ("recommends: unknown key", "did you mean 'recommend'")),
    ("n=5", ("n: unknown key", "did you mean 'recommend.n'")),
    ("mdel=als", ("mdel: unknown key", "did you mean 'model'")),
    ("model=easee", ("model.name: 'easee'", "did you mean 'ease'")),
    ("model.name=easee", ("model.name: 'easee'", "did you mean 'ease'")),
    ("model.regularisation=3", ("model.regularisation", "did you mean 'regularization'")),
    ("model.layers=3", ("model.layers", "ease has dropout")),
    ("model=3", ("model", "found 3")),
    ("model={regularization: 3}", ("model.name: missing", "'ease'")),
    ("model.regularization=much", ("model.regularization", "number", "'much'")),
    ("model.regularization=[1, 2]", ("model.regularization", "number")),
    ("model.regularization=[1, 2", ("model.regularization", "'[1, 2'")),
    ("data.source=tablet", ("data.source", "did you mean 'table'")),
    ("data.source=", ("data.source: ''",)),
    ("data.split=randm", ("data.split.kind", "did you mean 'random'")),
    ("data.split=3", ("data.split", "found 3")),
    ("data.splt=random", ("data.splt: unknown key", "did you mean 'split'")),
    ("data.split={kind: random, test_ratio: 2}", ("data.split.test_ratio", "less than 1", "found 2")),
    ("data.split={kind: random, test_ratio: 0.6, valid_ratio: 0.6}", ("data.split", "below 1")),
    ("data.split={kind: temporal, valid_from: 2020-01-01}", ("valid_from needs test_from",)),
    ("data.filters.duplicates=lst", ("data.filters.duplicates", "did you mean 'last'")),
    ("data.filters.start=soon", ("data.filters.start", "'soon' is not an ISO date")),
    ("data.filters.start=2019", ("data.filters.start", "ISO date")),
    ("data.filters={start: 2020-01-02, end: 2020-01-01}", ("data.filters", "must be before")),
    ("data.shards=0", ("data.shards", "greater than or equal to 1")),
    ("data.shards=010", ("data.shards", "integer", "'010'")),
    ("data.shards=1:30", ("data.shards", "integer", "'1:30'")),
    ("data.shards=1_000", ("data.shards", "integer", "'1_000'")),
    ("data.shards=4 #5", ("data.shards", "integer", "'4 #5'")),
    ("data.shards=*x", ("data.shards", "'*x'")),
    ("recommend.n=many", ("recommend.n", "integer", "'many'")),
    ("recommend.n=2.5", ("recommend.n", "integer")),
    ("recommend.n=-1", ("recommend.n", "greater than or equal to 1")),
    ("recommend.n=", ("recommend.n", "integer")),
    ("recommend.n={a: 1}", ("recommend.n", "integer")),
    ("recommend.n.x=3", ("recommend.n:", "found {'x': 3}")),
    ("recommend=mmr", ("recommend", "holds further keys")),
    ("recommend.filter_seen=3", ("recommend.filter_seen", "boolean")),
    ("recommend.filter_seen=perhaps", ("recommend.filter_seen", "boolean", "'perhaps'")),
    ("recommend.layout=nestd", ("recommend.layout", "did you mean 'nested'")),
    ("recommend.stages=[{name: a, ratings: 3, answers: model}]", ("recommend.stages", "begin with 0")),
    ("recommend.fallback=[nobody]", ("recommend.fallback", "no model 'nobody'")),
    ("recommend.ranker={pool: 3}", ("recommend.ranker.model", "field required")),
    ("recommend.ranker={model: ncff}", ("recommend.ranker.model.name", "did you mean 'ncf'")),
    ("recommend.time_of_day.timezone=Mars", ("recommend.time_of_day.timezone", "'Mars' is no time zone")),
    ("recommend.context={year_from: 2020, year_to: 2010}", ("recommend.context", "year_from=2020")),
    ("recommend.index.kind=flt", ("recommend.index.kind", "did you mean 'flat'")),
    ("evaluation.k=3", ("evaluation.k", "found 3")),
    ("evaluation.k=[a]", ("evaluation.k.0", "integer")),
    ("evaluation.baselines=[{name: item_cf, neighbours: 3}]", ("evaluation.baselines", "neighbours")),
    ("evaluate.on=test_part", ("evaluation.on", "'test_part'")),
    ("training.refit=some", ("training.refit", "'some'")),
    ("training.workers=3", ("training.workers", "holds further keys")),
    ("training.cold_items={}", ("training.cold_items", "add a section content")),
    ("training.memory_limit_gib=0", ("training.memory_limit_gib", "greater than 0")),
    ("cluster.num_cpus=two", ("cluster.num_cpus", "'two'")),
    ("cluster.object_store_mib=1", ("cluster.object_store_mib", "80")),
    ("cluster.fit_cpu=3", ("cluster.fit_cpu", "did you mean 'fit_cpus'")),
    ("serving.port=http", ("serving.port", "'http'")),
    ("serving.variants=[{name: a}, {name: a}]", ("serving.variants", "must differ")),
    ("serving.keys=[{name: a, sha256: x}]", ("serving.keys.0.sha256", "pattern")),
    ("tune.space={a: 3}", ("tune.space.a",)),
    ("runs.keep=0", ("runs.keep", "greater than or equal to 1")),
    ("runs.gate.min_coverage=2", ("runs.gate.min_coverage", "less than or equal to 1")),
    ("tracking.kind=wandb", ("tracking.kind", "'wandb'")),
    ("version=2", ("version: 2 is not supported",)),
    ("name=", ("name", "at least 1 character")),
    ("output=a\udce9b", ("output", "not UTF-8")),
    ("seed=-1", ("seed", "greater than or equal to 0")),
    ("seed", ("'seed' is not an override", "key=value")),
    ("=3", ("is not an override",)),
    ("a..b=3", ("is not an override",)),
    ("", ("is not an override",)),
    ("--recommend.n=many", ("recommend.n", "'many'")),
    (TABLE, ("events.csv", "no such file")),
    ("data={source: table, path: x.csv, train: y.csv}", ("data", "set either path, or train")),
    ("data={source: table, path: x.csv, columns: {user: a}}", ("data.columns.user", "did you mean 'user_id'")),
    ("data={source: table, path: 's3://b/x', delimiter: ab}", ("data.delimiter", "at most 1 character")),
]
MACHINES: list[tuple[RecsysError | str, tuple[str, ...]]] = [
    (what_failed(OSError(errno.ENOSPC, "No space left on device", "/out/x")), ("/out/x", "no space left", "output")),
    (what_failed(OSError(errno.EDQUOT, "Disk quota exceeded", "/out/x")), ("/out/x", "no space left")),
    (what_failed(OSError(errno.EROFS, "Read-only file system", "/out/x")), ("/out/x", "read-only", "set output")),
    (what_failed(PermissionError(errno.EACCES, "Permission denied", "/out/x")), ("/out/x", "permission", "set output")),
    (what_failed(OSError(errno.EMFILE, "Too many open files", "/out/x")), ("too many open files", "ulimit -n")),
    (what_failed(OSError(errno.EIO, "Input/output error", "/out/x")), ("/out/x", "Input/output error")),
    (
        why_not(Exception("The current node timed out during startup. This could happen because some of the raylet")),
        ("did not come up", "overloaded"),
    ),
    (
        why_not(
            RuntimeError(
                "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.12.1\n"
                "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.4\n"
            )
        ),
        ("cluster runs Ray 2.40.0 on Python 3.12.1", "this process Ray 2.60.0 on Python 3.11.4"),
    ),
    (why_not(OSError(errno.EROFS, "Read-only file system", "/tmp/ray")), ("/tmp/ray", "RAY_TMPDIR")),
    (why_not(PermissionError(errno.EACCES, "Permission denied", str(Path.home() / ".ray"))), (".ray", "HOME")),
    (storage_error("s3://b/x", type("NoCredentialsError", (Exception,), {})("Unable to locate")), ("AWS_PROFILE",)),
    (storage_error("gs://b/x", Exception("Anonymous caller does not have access")), ("GOOGLE_APPLICATION",)),
    (storage_error("az://c/x", ValueError("Must provide either a connection_string or account_name")), ("AZURE_",)),
    (storage_error("s3://b/x", PermissionError("The AWS Access Key Id you provided does not exist")), ("refused",)),
    (storage_error("s3://b/x", PermissionError("Forbidden")), ("access is refused", "AWS_ACCESS_KEY_ID")),
    (storage_error("s3://b/x", FileNotFoundError("The specified bucket does not exist")), ("no such bucket",)),
    (storage_error("s3://b/x", OSError(301, "PermanentRedirect: other endpoint")), ("AWS_DEFAULT_REGION",)),
    (storage_error("s3://b/x", Exception("Could not connect to the endpoint URL: x")), ("can't be reached", "network")),
    (storage_error("gs://b/x", Exception("Cannot connect to host storage.googleapis.com")), ("can't be reached",)),
    (storage_error("hdfs://h/x", OSError("Unable to load libjvm")), ("hdfs://h/x", "JAVA_HOME")),
    (storage_error("ftp://u:secret@h/x", OSError("530 Login incorrect")), ("ftp://u:***@h/x",)),
]


def asked(folder: Path, *words: str, text: bytes | None = None) -> tuple[int, list[str]]:
    """Exit status and lines of standard error of ``prepare`` with a configuration and overrides."""
    file = folder / "config.yaml"
    file.write_bytes(GOOD.format(folder=folder).encode() if text is None else text)
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        status = main(["prepare", str(file), *words])
    return status, errors.getvalue().splitlines()


def is_one_line(status: int, lines: list[str], words: tuple[str, ...]) -> None:
    assert status == 1 and len(lines) == 1 and lines[0].startswith("error: "), lines
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts Ray fails."""

    def start(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("recsys_ray.cluster.session.start_ray", start)


@pytest.mark.parametrize(("text", "words"), FILES, ids=range(len(FILES)))
def test_a_file_that_is_wrong_is_one_line(tmp_path: Path, text: bytes, words: tuple[str, ...]) -> None:
    is_one_line(*asked(tmp_path, text=text), words)


@pytest.mark.parametrize(("override", "words"), OVERRIDES, ids=[key for key, _ in OVERRIDES])
def test_an_override_that_is_wrong_is_one_line(tmp_path: Path, override: str, words: tuple[str, ...]) -> None:
    is_one_line(*asked(tmp_path, override), words)


@pytest.mark.parametrize(("said", "words"), MACHINES, ids=range(len(MACHINES)))
def test_what_a_machine_or_storage_refuses_is_one_line(said: RecsysError | str, words: tuple[str, ...]) -> None:
    assert "\n" not in str(said) and "secret" not in str(said)
    for word in words:
        assert word in str(said)


def test_the_corpus_is_large() -> None:
    counts = {"files": len(FILES), "overrides": len(OVERRIDES), "machines": len(MACHINES)}
    print(f"bad inputs: {counts}")
    assert sum(counts.values()) >= 120


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    wrong = ("recommend.n=x", "seed=-1", "name=", "cluster.actors=0", "modl=3")
    is_one_line(*asked(tmp_path, *wrong), ("recommend.n:", "seed:", "name:", "cluster.actors:", "modl: unknown key"))
    impossible = ("training.refit=train+valid", "evaluation.on=valid", "version=7")
    is_one_line(*asked(tmp_path, *impossible), ("training.refit:", "evaluation.on:", "version: 7"))


def test_no_error_line_shows_a_secret(tmp_path: Path) -> None:
    for wrong in ("serving.port=redis://:hunter2@h/0", "redis://:hunter2@host", "model=s3://a:hunter2@host/c"):
        status, lines = asked(tmp_path, wrong)
        assert status == 1 and len(lines) == 1 and "hunter2" not in lines[0] and "***@h" in lines[0]


def test_first_rows_are_read_before_ray_starts(tmp_path: Path) -> None:
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    events.write_text("user_id,item_id\n1,2\n")
    items.write_text("item_id,title\n2,a\n")
    table = f"data={{source: table, path: {events}, columns: {{user_id: user_id, item_id: item_id}}}}"
    with pytest.raises(AssertionError, match="Ray was started"):
        asked(tmp_path, table, f"data.items={items}")
    is_one_line(*asked(tmp_path, table, f"data.items={items}", "data.item_columns.title=name"), ("items.csv", "'name'"))
    is_one_line(*asked(tmp_path, table, "data.columns.item_id=film"), ("events.csv", "no column 'film'"))
    is_one_line(*asked(tmp_path, table, f"data.users={events}", "data.user_columns.user_id=u"), ("no column 'u'",))
    events.write_text("user_id,item_id,rating\n1,2,five\n")
    is_one_line(*asked(tmp_path, table, "data.columns.rating=rating"), ("events.csv", "rating", "five"))
    is_one_line(*asked(tmp_path, table, f"data.items={tmp_path / 'gone.csv'}"), ("gone.csv",))


def test_rows_cut_by_the_look_are_read_again_with_the_rest(tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_bytes(b"x" * 200_000)
    whole, looks = Chunk(str(events), 0, 200_000), list[int]()

    def read(chunk: Chunk) -> None:
        looks.append(chunk.stop)
        if chunk != whole or "bad" in events.name:
            raise DataError("a quoted field runs over")

    _look([whole], read)
    assert looks == [LOOK_BYTES, 200_000]
    events = events.rename(tmp_path / "bad.csv")
    whole = Chunk(str(events), 0, 200_000)
    with pytest.raises(DataError, match="runs over"):
        _look([whole], read)


@pytest.mark.parametrize(
    ("settings", "workers", "words"),
    [
        ({"fit_cpus": 64}, None, ("cluster.fit_cpus=64", "4 cores")),
        ({"actor_gpus": 1.0}, None, ("cluster.actor_gpus=1", "0 GPUs")),
        ({"actor_cpus": 8.0}, None, ("cluster.actor_cpus=8",)),
        ({}, {"gpus": 1.0}, ("training.workers.gpus=1",)),
        ({}, {"count": 16}, ("training.workers.count=16",)),
        ({}, {"cpus": 6, "count": 2}, ("training.workers.cpus=6",)),
    ],
)
def test_machines_that_are_not_there_are_refused(
    settings: dict[str, float], workers: dict[str, float] | None, words: tuple[str, ...]
) -> None:
    wanted = claims(
        ClusterSettings.model_validate(settings), None if workers is None else WorkerSettings.model_validate(workers)
    )
    with pytest.raises(ConfigError) as refused:
        refuse_impossible(wanted, [{"CPU": 4.0}, {"CPU": 2.0}], what="the Ray that is there")
    assert all(word in str(refused.value) for word in (*words, "cluster.autoscaling")), refused.value
    refuse_impossible(wanted, [{"CPU": 64.0, "GPU": 4.0}], what="a machine with room")


def test_processes_may_stand_on_several_machines() -> None:
    wanted = claims(ClusterSettings(), WorkerSettings.model_validate({"count": 6, "cpus": 2}))
    refuse_impossible(wanted, [{"CPU": 5.0}] * 3, what="three machines")
    with pytest.raises(ConfigError, match=r"training\.workers\.count=6"):
        refuse_impossible(wanted, [{"CPU": 5.0}] * 2, what="two machines")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:80", True),
        ("http://127.9.9.9", True),
        ("http://localhost:8000", True),
        ("http://[::1]:8000", True),
        ("http://10.0.0.1", False),
        ("https://example.org", False),
    ],
)
def test_only_this_machine_is_asked_without_a_proxy(url: str, found: bool) -> None:
    assert is_loopback(url) is found


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://", "http://a:b:c", "ftp://h", "http://h:0x"])
def test_what_is_no_address_of_a_service_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        is_loopback(url)


def test_the_first_error_comes_before_ray_torch_and_kernels(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("model: easee\n")
    code = (
        "import sys\nfrom recsys_ray.cli import main\n"
        f"status = main(['run', {str(config)!r}])\n"
        "heavy = {'ray', 'torch', 'numba', 'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'{status} {sorted(heavy)}' if status != 1 or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stderr.startswith("error: "), done.stderr

"""Another user of the machine: can read no secret, reach no socket of ours, alter nothing that answers."""

from __future__ import annotations

import os
import pwd
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_ray.cluster import start
from recsys_ray.cluster.proxy import bounded, private_folder
from recsys_ray.recommend.array_files import _own_cache
from tests.serving_worlds import client

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


def as_nobody(work: Callable[[], object]) -> bool:
    """Whether nobody can do this. Only the fork is another user; it runs none of Python's exit work."""
    child = os.fork()
    if not child:
        try:
            user = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            work()
            os._exit(0)
        except OSError:
            os._exit(1)
        except BaseException:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1), "the attempt broke in another way"
    return status == 0


def writing(path: Path) -> Callable[[], object]:
    return lambda: path.open("r+b" if path.exists() else "wb").close()


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A directory that everybody can reach, as servers have them; what is made inside has the mode it is given."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path(folder.anchor):
            folder.chmod(folder.stat().st_mode | 0o055)
    assert as_nobody(lambda: os.listdir(tmp_path))
    return tmp_path


def test_the_proxy_takes_no_command_of_his_and_shows_no_file() -> None:
    with private_folder() as folder:
        bounded(folder, 5)
        admin = folder / "admin.sock"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(admin))
            listening.listen()
            admin.chmod(0o666)  # as Ray makes it: the folder alone keeps others out

            def connect() -> None:
                with socket.socket(socket.AF_UNIX) as one:
                    one.connect(str(admin))

            connect()
            assert not as_nobody(connect)
            assert not as_nobody(admin.unlink)  # nor puts his own in its place
            assert not as_nobody(lambda: os.listdir(folder))
            assert not as_nobody((folder / "haproxy").read_bytes)


def test_ray_s_token_and_sockets_are_not_for_him(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(public))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    token = public / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")  # as Ray leaves it
    assert as_nobody(token.read_text)
    start._hide_token()
    start._own_place()
    assert not as_nobody(token.read_text) and token.read_text() == "secret"
    place = Path(os.environ["RAY_TMPDIR"])
    assert not as_nobody(lambda: os.listdir(place)) and not as_nobody((place / "x").touch)
    monkeypatch.delenv("RAY_TMPDIR")


def test_a_local_copy_of_a_model_is_not_his_to_read_or_alter(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(public))
    public.chmod(0o777)
    copy = _own_cache() / "model"
    copy.write_bytes(b"model")
    for attempt in (copy.read_bytes, writing(copy), copy.unlink, (copy.parent / "another").touch):
        assert not as_nobody(attempt)


def test_what_users_sent_and_which_run_answers_are_not_his_to_write(world: Path, public: Path) -> None:
    with client(world, state=str(public / "state")) as service:
        assert service.post("/v1/feedback", json={"events": [{"user_id": 7, "item_id": 3}]}).status_code == 200
        files = [path for folder in (world, public / "state") for path in folder.rglob("*")]
        assert len(files) > 10
        for path in files:
            if path.is_file():
                assert not as_nobody(writing(path)), path
            elif stat.S_ISDIR(path.stat().st_mode):
                assert not as_nobody((path / "planted").touch), path
        state = public / "state" / "state.sqlite"
        for path in (state, Path(f"{state}-wal")):
            assert not as_nobody(path.read_bytes), f"{path.name} shows what users sent"


def test_what_he_is_kept_from_he_could_do_where_it_is_open(public: Path) -> None:
    """Else every test above would pass for another reason."""
    (public / "open").write_text("x")
    (public / "open").chmod(0o666)
    assert as_nobody((public / "open").read_text) and as_nobody(writing(public / "open"))

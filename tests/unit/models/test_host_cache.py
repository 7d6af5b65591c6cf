"""How a host finds a model, checks that it is the one that was prepared, and deletes models that nobody uses."""

import dataclasses
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from wheels import install_model

from spark_instructor.encoder import InstructorModel, preparation, prepare, prepare_model
from spark_instructor.models import prepared as prepared_module
from spark_instructor.models.host_cache import ModelLocation, _verify_once, delete_unused_models, locate_model
from spark_instructor.models.installed import PACKAGED, to_installed_name
from spark_instructor.models.prepared import MANIFEST, PRECISIONS, TOKENIZER, WEIGHTS, read_prepared


def location_of(prepared, path=None, archive=None):
    model = read_prepared(prepared)
    return ModelLocation(name=model.name, folder_name=model.folder_name, path=path and str(path), archive=archive)


def locate(location):
    return Path(locate_model(location, prepare=prepare_model).folder)


@pytest.fixture
def sent(tiny, tmp_path, monkeypatch):
    """Return the location of a model that Spark unpacked for this executor; the cache of the host is empty."""
    from pyspark import SparkFiles

    root, temporary = tmp_path / "spark", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(SparkFiles, "getRootDirectory", lambda: str(root))
    prepared = prepare(tiny)
    shutil.copytree(prepared, root / "model.zip")
    return location_of(prepared, archive="model.zip")


class TestLocateModel:
    def test_a_shared_path_is_used_in_place(self, tiny):
        prepared = prepare(tiny)
        assert locate(location_of(prepared, path=prepared)) == prepared

    def test_a_shared_path_that_is_not_here(self, tiny, tmp_path):
        with pytest.raises(FileNotFoundError, match=rf"cannot read the model 'tiny' at {tmp_path}/gone"):
            locate(location_of(prepare(tiny), path=tmp_path / "gone"))

    def test_an_archive_goes_to_the_hosts_cache(self, sent, tmp_path):
        kept = locate(sent)
        assert kept.is_relative_to(tmp_path / "tmp") and kept.name == sent.folder_name
        read_prepared(kept).verify()
        shutil.rmtree(tmp_path / "spark")  # Spark deletes the folder of an executor when the executor ends
        assert locate(sent) == kept
        assert InstructorModel.load(kept).encode("", ["a"]).any()

    def test_an_archive_that_did_not_come(self, sent):
        with pytest.raises(FileNotFoundError, match=r"'tiny' did not reach this host: expected it at one of .*other"):
            locate(dataclasses.replace(sent, archive="other.zip"))

    @pytest.mark.parametrize("place", ["artifactDir", "DB_SESSION_UUID", "multi driver", "working directory"])
    @pytest.mark.parametrize("unpacked", [True, False])
    def test_an_archive_in_the_places_of_databricks(self, sent, tmp_path, monkeypatch, place, unpacked):
        from pyspark import TaskContext

        disk = tmp_path / "local_disk0"
        places = {
            "artifactDir": tmp_path / "artifacts" / "archives",
            "DB_SESSION_UUID": disk / ".ephemeral_nfs" / "artifacts" / "a-session" / "archives",
            "multi driver": disk / ".ephemeral_nfs_multi_driver" / "a-driver" / "artifacts" / "a-session" / "archives",
            "working directory": tmp_path / "here",
        }
        for folder in places.values():
            folder.mkdir(parents=True)
        task = SimpleNamespace(artifactDir=lambda: str(tmp_path / "artifacts"))
        monkeypatch.setattr(TaskContext, "get", lambda: task)
        monkeypatch.setattr("spark_instructor.models.host_cache._LOCAL_DISK", disk)
        monkeypatch.setenv("DB_SESSION_UUID", "a-session")
        monkeypatch.chdir(places["working directory"])

        unpacked_folder = tmp_path / "spark" / "model.zip"
        archive = places[place] / "model.zip"
        if unpacked:
            unpacked_folder.rename(archive)
        else:
            shutil.make_archive(str(archive.with_suffix("")), "zip", unpacked_folder)
            shutil.rmtree(unpacked_folder)
        read_prepared(locate(sent)).verify()

        with pytest.raises(FileNotFoundError, match=r"did not reach this host.*setSharedFolder") as error:
            locate(dataclasses.replace(sent, folder_name="another", archive="another.zip"))
        for folder in (tmp_path / "spark", *places.values()):
            assert str(folder / "another.zip") in str(error.value)

    def test_another_file_system(self, sent, monkeypatch):
        def cross_device(*args):
            raise OSError("Invalid cross-device link")

        monkeypatch.setattr(os, "link", cross_device)
        read_prepared(locate(sent)).verify()

    @pytest.mark.parametrize("file", [MANIFEST, TOKENIZER, WEIGHTS])
    @pytest.mark.parametrize("damage", ["missing", "cut short"])
    def test_a_damaged_cache_is_made_anew(self, sent, file, damage):
        damaged = locate(sent) / file
        content = damaged.read_bytes()
        damaged.unlink()
        if damage == "cut short":
            damaged.write_bytes(content[: len(content) // 2])
        read_prepared(locate(sent)).verify()

    @pytest.mark.parametrize("file", [TOKENIZER, WEIGHTS])
    def test_an_altered_cache_is_made_anew(self, sent, file):
        altered = locate(sent) / file
        content = altered.read_bytes()
        altered.unlink()  # the link, not what Spark unpacked
        altered.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        read_prepared(locate(sent)).verify()

    def test_an_altered_archive_is_never_used(self, sent, tmp_path):
        flip_last_byte(tmp_path / "spark" / "model.zip" / WEIGHTS)
        with pytest.raises(ValueError, match=f"{WEIGHTS} was changed after it was prepared"):
            locate(sent)

    def test_half_an_archive_is_never_used(self, sent, tmp_path):
        (tmp_path / "spark" / "model.zip" / WEIGHTS).unlink()
        with pytest.raises(FileNotFoundError, match=f"lacks {WEIGHTS}: the prepared model 'tiny' is incomplete"):
            locate(sent)

    def test_many_workers_at_once(self, sent, tmp_path):
        fork = multiprocessing.get_context("fork")
        ready, found = fork.Barrier(8), fork.Queue()

        def start():
            ready.wait()
            found.put(str(locate(sent)))

        workers = [fork.Process(target=start) for _ in range(8)]
        for one in workers:
            one.start()
        folders = {found.get(timeout=60) for _ in workers}
        for one in workers:
            one.join()
        (cache,) = (tmp_path / "tmp").iterdir()
        assert folders == {str(cache / sent.folder_name)}
        assert {path for path in cache.iterdir() if path.is_dir()} == {cache / sent.folder_name}
        read_prepared(cache / sent.folder_name).verify()

    @pytest.mark.parametrize("as_link", [False, True])
    def test_a_cache_of_another_user(self, sent, tmp_path, monkeypatch, as_link):
        mine = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
        theirs = tmp_path / "tmp" / f"spark_instructor-{mine + 1}"
        if as_link:
            theirs.symlink_to(tmp_path)
        else:
            theirs.mkdir()
        with pytest.raises(PermissionError, match="belongs to another user"):
            locate(sent)

    def test_a_file_in_place_of_the_cache(self, sent, tmp_path):
        file = tmp_path / "tmp" / f"spark_instructor-{os.getuid()}"
        file.touch()
        with pytest.raises(FileExistsError, match=f"{file} is not a folder, .*set TMPDIR"):
            locate(sent)


class TestInstalledModels:
    @pytest.fixture(autouse=True)
    def cold_cache(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    @staticmethod
    def location_of(model):
        return ModelLocation(
            model.name, model.folder_name, None, None, to_installed_name(model.name), precision=model.precision
        )

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_the_packaged_model_is_prepared_once_per_host(self, tmp_path, monkeypatch, precision):
        driver = prepare_model(PACKAGED, precision)
        location = self.location_of(driver)
        monkeypatch.setenv("HF_HOME", "/nonexistent/hf")  # an executor may have no home folder
        found = locate(location)
        assert found.is_relative_to(tmp_path) and found.name == driver.folder_name
        assert read_prepared(found).content_hash == driver.content_hash
        monkeypatch.setattr(preparation, "_write_weights", None)
        assert locate(location) == found
        assert {path for path in found.parent.iterdir() if path.is_dir()} == {found}

    def test_another_version_of_the_packaged_model(self, tmp_path):
        driver = prepare_model(PACKAGED)
        location = self.location_of(dataclasses.replace(driver, max_length=11))
        with pytest.raises(ValueError, match="'instructor_tiny' differs between the driver") as raised:
            locate(location)
        assert location.folder_name in str(raised.value) and driver.folder_name in str(raised.value)
        assert "Install the same versions" in str(raised.value)
        assert not [path for path in tmp_path.glob("spark_instructor-*/*") if path.is_dir()]

    def test_a_wheel_is_used_in_place(self, tiny, tmp_path, monkeypatch):
        folder = install_model(tiny, "bfloat16", tmp_path / "site")
        driver = prepare_model(tiny, "bfloat16")
        with pytest.raises(FileNotFoundError, match=r"'tiny' is installed on the driver, but not .*Install the same"):
            locate(self.location_of(driver))
        monkeypatch.syspath_prepend(tmp_path / "site")
        assert locate(self.location_of(driver)) == folder
        other = prepare_model(tiny)
        with pytest.raises(ValueError, match=rf"{other.folder_name}\) and .*{driver.folder_name} in {folder}"):
            locate(self.location_of(other))
        flip_last_byte(folder / WEIGHTS)
        with pytest.raises(ValueError, match=f"{folder / WEIGHTS} was changed after it was prepared"):
            locate(self.location_of(driver))


class TestDeleteUnusedModels:
    @pytest.fixture
    def worker(self, sent):
        """Return a function that starts a process, which uses the model under this name until it is killed."""
        fork = multiprocessing.get_context("fork")
        processes = []

        def start(name):
            located = fork.Event()

            def work():
                locate(dataclasses.replace(sent, folder_name=name))
                located.set()
                time.sleep(600)

            processes.append(fork.Process(target=work))
            processes[-1].start()
            assert located.wait(60)
            return processes[-1]

        yield start
        for one in processes:
            kill(one)

    @pytest.fixture
    def cache(self, tmp_path):
        return tmp_path / "tmp" / f"spark_instructor-{os.getuid()}"

    def test_a_model_that_a_worker_uses_stays_until_the_worker_is_killed(self, worker, cache):
        process = worker("model")
        assert delete_unused_models(max_age=0) == {}
        read_prepared(cache / "model").verify()
        kill(process)
        assert delete_unused_models(max_age=0).keys() == {cache / "model"}
        assert not (cache / "model").exists() and not list(cache.glob("*.verified"))

    def test_a_new_model_takes_the_place_of_one_not_used_for_a_month(self, worker, cache):
        for name in ("old", "recent"):
            kill(worker(name))
        last_use = time.time() - 31 * 24 * 3600
        os.utime(cache / "old", (last_use, last_use))
        worker("new")
        assert list_folders(cache) == {"recent", "new"}

    def test_each_use_counts(self, worker, cache):
        kill(worker("model"))
        os.utime(cache / "model", (1, 1))
        kill(worker("model"))
        assert delete_unused_models() == {}

    def test_the_least_recently_used_ones_beyond_the_size(self, worker, cache):
        for number, name in enumerate(("used", "oldest", "older", "newest")):
            process = worker(name)
            last_use = time.time() - 100 + number
            os.utime(cache / name, (last_use, last_use))
            if name != "used":
                kill(process)
        size = sum(file.stat().st_size for file in (cache / "used").iterdir())
        delete_unused_models(max_age=float("inf"), max_bytes=2 * size)
        assert list_folders(cache) == {"used", "older", "newest"}  # the oldest one is in use

    def test_what_a_killed_worker_was_writing(self, sent, worker, cache, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr("spark_instructor.models.host_cache._copy_archive", lambda *paths: os._exit(9))
            killed = multiprocessing.get_context("fork").Process(target=locate, args=(sent,))
            killed.start()
            killed.join()
        (left,) = cache.glob(".*")
        assert delete_unused_models().keys() == {left}

    def test_what_a_worker_is_writing(self, sent, cache, monkeypatch):
        fork = multiprocessing.get_context("fork")
        writing = fork.Event()

        def write_slowly(*paths):
            writing.set()
            time.sleep(600)

        monkeypatch.setattr("spark_instructor.models.host_cache._copy_archive", write_slowly)
        writer = fork.Process(target=locate, args=(sent,))
        writer.start()
        assert writing.wait(60)
        assert delete_unused_models(max_age=0) == {}
        kill(writer)
        assert len(delete_unused_models(max_age=0)) == 1

    def test_a_worker_that_comes_during_a_deletion(self, sent, worker, monkeypatch):
        """The worker waits for the end of the deletion and copies the model again."""
        kill(worker(sent.folder_name))
        fork = multiprocessing.get_context("fork")
        deleting, found = fork.Event(), fork.Queue()

        def work():
            deleting.wait()
            found.put(locate(sent))

        late = fork.Process(target=work)
        late.start()
        rmtree = shutil.rmtree

        def delete_slowly(folder, **options):
            deleting.set()
            time.sleep(1)
            rmtree(folder, **options)

        monkeypatch.setattr(shutil, "rmtree", delete_slowly)
        assert len(delete_unused_models(max_age=0)) == 1
        read_prepared(found.get(timeout=60)).verify()
        late.join()


def kill(process):
    process.kill()
    process.join()


def list_folders(cache):
    return {path.name for path in cache.iterdir() if path.is_dir()}


def verify(folder):
    return _verify_once(read_prepared(folder)).file_state


class TestVerifyOnce:
    @pytest.fixture
    def folder(self, tiny, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        return shutil.copytree(prepare(tiny), tmp_path / "model")

    @pytest.fixture
    def hashed_files(self, monkeypatch):
        """Return the list of the names of the files that are hashed from now on."""
        files = []
        hash_file = prepared_module.hash_file
        monkeypatch.setattr(prepared_module, "hash_file", lambda path: files.append(path.name) or hash_file(path))
        return files

    def test_hashed_once_per_host(self, folder, hashed_files):
        assert verify(folder) == verify(folder)
        assert sorted(hashed_files) == [WEIGHTS, TOKENIZER]

    @pytest.mark.parametrize("file", [TOKENIZER, WEIGHTS])
    def test_altered_between_jobs(self, folder, file):
        verify(folder)
        flip_last_byte(folder / file)
        for _ in range(2):
            with pytest.raises(ValueError, match=f"{folder / file} was changed after it was prepared.*Delete"):
                verify(folder)

    def test_a_newer_time_alone_is_no_alteration(self, folder, hashed_files):
        before = verify(folder)
        os.utime(folder / WEIGHTS, (1, 1))
        assert verify(folder) != before
        assert len(hashed_files) == 4

    def test_a_process_that_died_while_it_noted_the_state(self, folder, tmp_path, hashed_files):
        state = verify(folder)
        (seen,) = tmp_path.glob("spark_instructor-*/*.verified")
        seen.write_text(state[: len(state) // 2])
        assert verify(folder) == state
        assert len(hashed_files) == 4


def flip_last_byte(path):
    """Change a file in place; its size stays the same."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))

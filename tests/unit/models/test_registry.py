"""From the name of a model to its folder: known names, paths, and downloads from a hub on this machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from fake_hub import FakeHub

from spark_instructor import known_models
from spark_instructor.encoder import InstructorModel, prepare
from spark_instructor.models.registry import _download, find_checkpoint, is_cached, name_everywhere

REPOSITORY = "someone/instructor-small"


class TestNames:
    def test_known_models(self):
        """The names are those of Spark NLP; the ids and widths are those of the checkpoints on the hub."""
        assert {(one.name, one.source, one.dimension) for one in known_models()} >= {
            ("instructor_base", "hkunlp/instructor-base", 768),
            ("instructor_large", "hkunlp/instructor-large", 768),
            ("instructor_xl", "hkunlp/instructor-xl", 768),
        }

    def test_packaged_model(self):
        (packaged,) = (one for one in known_models() if one.source == "packaged")
        model = InstructorModel.from_pretrained(packaged.name)
        assert model.dimension == packaged.dimension
        assert model.encode("", ["a text"]).any()

    def test_cached_models(self, monkeypatch):
        def look(hub_id, file):
            return f"/cache/{hub_id}/{file}" if hub_id == "hkunlp/instructor-base" else None

        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look)
        cached = {one.name: is_cached(one) for one in known_models()}
        assert [name for name, there in cached.items() if there] == ["instructor_tiny", "instructor_base"]
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        assert [one.name for one in known_models() if is_cached(one)] == ["instructor_tiny"]

    @pytest.mark.parametrize("name", ["instructor_huge", "", "instructor-base"])
    def test_unknown_name(self, name):
        with pytest.raises(ValueError, match=f"unknown model '{name}'") as raised:
            find_checkpoint(name)
        assert all(one.name in str(raised.value) for one in known_models())

    @pytest.mark.parametrize(
        ("name", "hub_id"),
        [
            ("instructor_base", "hkunlp/instructor-base"),
            ("hkunlp/instructor-large", "hkunlp/instructor-large"),
            ("sentence-transformers/gtr-t5-base", "sentence-transformers/gtr-t5-base"),
        ],
    )
    def test_what_is_asked_of_the_hub(self, monkeypatch, tmp_path, name, hub_id):
        asked = []
        monkeypatch.setattr("spark_instructor.models.registry._download", lambda *args: asked.append(args) or tmp_path)
        assert find_checkpoint(name, "v1") == tmp_path
        assert asked == [(hub_id, "v1", None)]


class TestFolders:
    @pytest.mark.parametrize("spelling", ["{}", "file:{}", "file://{}", "file://localhost{}"])
    def test_path_or_uri(self, tmp_path, spelling):
        folder = tmp_path / "a model"
        folder.mkdir()
        assert find_checkpoint(spelling.format(folder)) == folder

    def test_relative_and_home(self, monkeypatch, tmp_path):
        (tmp_path / "owner" / "model").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        # A folder that is there comes before a hub id that reads the same.
        assert find_checkpoint("owner/model") == find_checkpoint("./owner/model") == Path("owner/model")
        assert find_checkpoint("~/owner/model") == tmp_path / "owner" / "model"
        # What is stored beside vectors must name the same folder elsewhere.
        assert name_everywhere("owner/model") == str(tmp_path / "owner" / "model")
        assert name_everywhere("owner/other") == "owner/other"
        assert name_everywhere("instructor_tiny") == "instructor_tiny"

    @pytest.mark.parametrize("spelling", ["dbfs:/Volumes/main/models/base", "/Volumes/main/models/base"])
    def test_volumes(self, monkeypatch, spelling):
        monkeypatch.setattr(Path, "is_dir", lambda path: str(path).startswith("/Volumes/main"))
        assert find_checkpoint(spelling) == Path("/Volumes/main/models/base")

    @pytest.mark.parametrize(
        "missing",
        [
            "/no/such/model",
            "./no/model",
            "../model",
            "file:/no/such",
            "dbfs:/Volumes/no/such",
            "a/b/c",
            "C:\\m",
        ],
    )
    def test_missing(self, missing):
        with pytest.raises(FileNotFoundError, match="there is no checkpoint folder"):
            find_checkpoint(missing)

    def test_other_file_systems(self):
        with pytest.raises(ValueError, match=r"^s3://bucket/model: a model is read as local files, and s3: is not"):
            find_checkpoint("s3://bucket/model")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Serve three revisions of one repository, each with its own weights, among files that nobody needs."""
    root = tmp_path_factory.mktemp("hub")
    revisions = {
        "main": write_checkpoint(root / "main", dimension=10),
        "bin-only": write_checkpoint(root / "bin-only", dimension=11, stored_as="bin"),
        "sharded": write_checkpoint(root / "sharded", dimension=12, stored_as="sharded"),
        "sharded-bin": write_checkpoint(root / "sharded-bin", dimension=13, stored_as="sharded bin"),
    }
    (root / "main" / "pytorch_model.bin").write_bytes(b"the same weights once more")
    for folder in revisions.values():
        (folder / "README.md").write_text("a model card")
        (folder / "LICENSE.txt").write_text("a license")
        (folder / "tf_model.h5").write_bytes(b"weights for others")
        (folder / "onnx").mkdir()
        (folder / "onnx" / "model.onnx").write_bytes(b"weights for others")
    with FakeHub(REPOSITORY, revisions).serving() as hub:
        yield hub


def get_folder(home, hub_id, revision=None, cache_folder=None, **variables):
    """Ask for a folder in a process of its own, since huggingface_hub reads its settings when it is imported."""
    code = """
import json, sys
from spark_instructor.models.registry import find_checkpoint, name_everywhere
try:
    print(json.dumps([str(find_checkpoint(*json.loads(sys.argv[1])))]))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    proxies = {name for name in os.environ if name.lower().endswith("_proxy")}
    environment = {name: value for name, value in os.environ.items() if name not in proxies}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([hub_id, revision, cache_folder])],
        env={**environment, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def unreachable():
    """Return the address of a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


class TestHub:
    @pytest.mark.parametrize(
        ("revision", "dimension", "weights"),
        [
            (None, 10, {"model.safetensors"}),
            ("main", 10, {"model.safetensors"}),
            ("bin-only", 11, {"pytorch_model.bin"}),
            ("sharded", 12, {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}),
            ("sharded-bin", 13, {"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"}),
        ],
    )
    def test_download(self, hub, tmp_path, revision, dimension, weights):
        """Only the requested revision is downloaded, in safetensors if it has any, and no file that is not needed."""
        hub.downloaded.clear()
        (folder,) = get_folder(tmp_path, REPOSITORY, revision, HF_ENDPOINT=hub.url)
        assert tmp_path in Path(folder).parents
        found = {name for name in hub.downloaded if "/" not in name and not name.endswith((".json", "spiece.model"))}
        assert found == weights | {"README.md", "LICENSE.txt"}
        assert not any("onnx" in name for name in hub.downloaded)
        prepared = prepare(folder)
        assert prepared.name.startswith("instructor-small-float32-")
        assert InstructorModel.load(prepared).dimension == dimension

    def test_a_part_of_a_checkpoint(self, hub, tmp_path):
        """An interrupted download leaves some of the files, which a process without a network takes for all."""
        (folder,) = get_folder(tmp_path, REPOSITORY, HF_ENDPOINT=hub.url)
        Path(folder, "modules.json").unlink()
        for listing in tmp_path.rglob("trees"):  # newer versions of huggingface_hub compare with it
            shutil.rmtree(listing)
        error, says = get_folder(tmp_path, REPOSITORY, HF_HUB_OFFLINE="1")
        assert (error, "has no modules.json in the local cache" in says) == ("FileNotFoundError", True)

    def test_another_cache(self, hub, tmp_path):
        home, cache = tmp_path / "home", tmp_path / "cache"
        (folder,) = get_folder(home, REPOSITORY, cache_folder=str(cache), HF_ENDPOINT=hub.url)
        assert cache in Path(folder).parents
        assert not home.exists() or not list(home.rglob("*.safetensors"))

    @pytest.mark.parametrize("revision", ["main", "bin-only"])
    def test_filled_cache(self, hub, unreachable, tmp_path, revision):
        """A downloaded model is found offline and while the hub is down; for a commit, the hub is not even asked."""
        first = get_folder(tmp_path, REPOSITORY, revision, HF_ENDPOINT=hub.url)
        hub.downloaded.clear()
        assert get_folder(tmp_path, REPOSITORY, revision, HF_ENDPOINT=hub.url) == first
        assert hub.downloaded == []
        assert get_folder(tmp_path, REPOSITORY, revision, HF_HUB_OFFLINE="1") == first
        assert get_folder(tmp_path, REPOSITORY, revision, HF_ENDPOINT=unreachable) == first
        assert get_folder(tmp_path, REPOSITORY, hub.commit_of[revision], HF_HUB_OFFLINE="1") == first

    @pytest.mark.parametrize("how", ["offline", "unreachable"])
    def test_empty_cache(self, unreachable, tmp_path, how):
        variables = {"HF_HUB_OFFLINE": "1"} if how == "offline" else {"HF_ENDPOINT": unreachable}
        error, says = get_folder(tmp_path, REPOSITORY, **variables)
        assert error == "ConnectionError"
        assert f"{REPOSITORY} is neither a folder here nor in the local cache" in says
        assert "copy its HF_HOME here" in says
        assert "pass its path" in says

    @pytest.mark.parametrize(("hub_id", "revision"), [("someone/else", None), (REPOSITORY, "v9")])
    def test_not_on_the_hub(self, hub, tmp_path, hub_id, revision):
        error, says = get_folder(tmp_path, hub_id, revision, HF_ENDPOINT=hub.url)
        assert error == "ValueError"
        assert f"the hub has no {hub_id} at revision {revision or 'main'}" in says

    def test_without_huggingface_hub(self, monkeypatch):
        """Only downloads need huggingface_hub."""
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(ImportError, match=r"pip install 'spark-instructor-embeddings\[hub\]'"):
            _download(REPOSITORY, "of this test", None)

